"""The header of the PROXY protocol: every cut the same, and nothing but it is taken."""

import struct
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.model import ProtocolError
from protocols.proxy_protocol import Announced, ProxyHeader

MARK = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n\r\n"


def v2(command=0x21, family=0x11, block=b"", length=None):
    size = len(block) if length is None else length
    return MARK + struct.pack(">BBH", command, family, size) + block


def addresses(source, destination, source_port=4711, destination_port=443):
    packed = ip_address(source).packed + ip_address(destination).packed
    return packed + struct.pack(">HH", source_port, destination_port)


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


IPV4 = addresses("192.0.2.1", "198.51.100.2")
IPV6 = addresses("2001:db8::1", "2001:db8::2")
CLIENT4 = Announced("192.0.2.1", 4711, "198.51.100.2", 443)
CLIENT6 = Announced("2001:db8::1", 4711, "2001:db8::2", 443)

#: version, bytes, what is announced.
GOOD = {
    "v1": ("v1", b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", CLIENT4),
    "v1 ipv6": ("v1", b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 4711 443\r\n", CLIENT6),
    "v1 ports": (
        "v1",
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        Announced("0.0.0.0", 0, "255.255.255.255", 65535),
    ),
    "v1 longest": (
        "v1",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b"f") + b"\r\n",
        None,
    ),
    "v1 unknown": ("v1", b"PROXY UNKNOWN\r\n", None),
    "v1 auto": ("auto", b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", CLIENT4),
    "v2": ("v2", v2(block=IPV4), CLIENT4),
    "v2 auto": ("auto", v2(block=IPV4), CLIENT4),
    "v2 ipv6": ("v2", v2(family=0x21, block=IPV6), CLIENT6),
    "v2 local": ("v2", v2(0x20, 0x00), None),
    "v2 local with addresses": ("v2", v2(0x20, 0x11, IPV4), None),
    "v2 local with anything": ("v2", v2(0x20, 0x11, b"x"), None),
    "v2 unspec": ("v2", v2(0x21, 0x00, b"anything"), None),
    "v2 udp": ("v2", v2(0x21, 0x12, IPV4), None),
    "v2 unix": ("v2", v2(0x21, 0x31, bytes(216)), None),
    "v2 other tlvs": ("v2", v2(block=IPV4 + tlv(4, b"") + tlv(0xEA, b"vpce-1")), CLIENT4),
    "v2 tls": (
        "v2",
        v2(block=IPV4 + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))),
        Announced("192.0.2.1", 4711, "198.51.100.2", 443, True),
    ),
    "v2 no tls": (
        "v2",
        v2(block=IPV4 + tlv(0x20, b"\x00\0\0\0\0")),
        Announced("192.0.2.1", 4711, "198.51.100.2", 443, False),
    ),
    "v2 longest": ("v2", v2(block=IPV4 + tlv(4, bytes(1024 - 12 - 3))), CLIENT4),
}

#: version, bytes, words of the reason.
BAD = {
    "http": ("v1", REST, "no PROXY protocol header (v1)"),
    "http, v2 wanted": ("v2", REST, "no PROXY protocol header (v2)"),
    "http, either wanted": ("auto", REST, "no PROXY protocol header (v1 or v2)"),
    "tls": ("auto", b"\x16\x03\x01", "no PROXY"),
    "v2 where v1 is wanted": ("v1", v2(block=IPV4), "no PROXY"),
    "v1 where v2 is wanted": ("v2", b"PROXY UNKNOWN\r\n", "no PROXY"),
    "lower case": ("v1", b"proxy UNKNOWN\r\n", "no PROXY"),
    "v1 no family": ("v1", b"PROXY \r\n", "the family ''"),
    "v1 udp": ("v1", b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "the family 'UDP4'"),
    "v1 bare line feed": ("v1", b"PROXY UNKNOWN\n", "without a carriage return"),
    "v1 three words": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "two ports"),
    "v1 five words": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "two ports"),
    "v1 two spaces": ("v1", b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "two ports"),
    "v1 a space at the end": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "two ports"),
    "v1 name": ("v1", b"PROXY TCP4 localhost 192.0.2.2 1 2\r\n", "none of TCP4"),
    "v1 zeros": ("v1", b"PROXY TCP4 192.000.002.001 192.0.2.2 1 2\r\n", "none of TCP4"),
    "v1 family mixed": ("v1", b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n", "none of TCP4"),
    "v1 zone": ("v1", b"PROXY TCP6 ::1%a ::1 1 2\r\n", "has a zone"),
    "v1 zone of escapes": ("v1", b"PROXY TCP6 ::1 ::1%\r\x1b[2J 1 2\r\n", "has a zone"),
    "v1 family mixed 6": ("v1", b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", "none of TCP6"),
    "v1 port too large": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "a port"),
    "v1 port with a sign": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "a port"),
    "v1 port with a zero": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "a port"),
    "v1 port not ascii": ("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 2\r\n", "a port"),
    "v1 too long": ("v1", b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n", "more than 107 bytes"),
    "v2 version 1": ("v2", v2(0x11, 0x11, IPV4), "version and command 0x11"),
    "v2 command 2": ("v2", v2(0x22, 0x11, IPV4), "version and command 0x22"),
    "v2 family": ("v2", v2(0x21, 0x41, IPV4), "address family 0x41"),
    "v2 protocol": ("v2", v2(0x21, 0x13, IPV4), "address family 0x13"),
    "v2 short": ("v2", v2(block=IPV4[:-1]), "11 bytes of addresses where 12 belong"),
    "v2 short 6": ("v2", v2(family=0x21, block=IPV4), "12 bytes of addresses where 36 belong"),
    "v2 long": ("v2", v2(length=1025), "at most 1024"),
    "v2 tlv cut": ("v2", v2(block=IPV4 + b"\x04\0"), "a TLV is cut off"),
    "v2 tlv beyond": ("v2", v2(block=IPV4 + b"\x04\0\x05abcd"), "a TLV is cut off"),
    "v2 tls cut": ("v2", v2(block=IPV4 + tlv(0x20, b"\1")), "about TLS"),
}


def run(version, pieces):
    """What is announced, and what of the pieces belongs to what follows; or the reason."""
    header = ProxyHeader(version)
    rest = b""
    for piece in pieces:
        if header.done:
            rest += piece
            continue
        try:
            used = header.receive(piece)
        except ProtocolError as error:
            return error.reason
        assert header.done or used == len(piece)
        rest += piece[used:]
    return header.announced, rest, header.done


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_header_is_taken_and_nothing_else(kind):
    version, data, announced = GOOD[kind]
    expected = (announced, REST, True)
    assert run(version, [data + REST]) == expected
    for cut in range(1, len(data) + 1):
        assert run(version, [data[:cut], data[cut:] + REST]) == expected
    assert run(version, [bytes([byte]) for byte in data + REST]) == expected


@pytest.mark.parametrize("kind", GOOD)
def test_a_header_that_is_not_whole_is_waited_for(kind):
    version, data, _ = GOOD[kind]
    assert run(version, [data[:-1]]) == (None, b"", False)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_header_is_refused_with_its_reason(kind):
    version, data, words = BAD[kind]
    assert words in run(version, [data + REST])
    assert words in run(version, [bytes([byte]) for byte in data + REST])


def test_a_wrong_start_is_refused_by_its_first_wrong_byte():
    assert run("auto", [b"P"]) == (None, b"", False)
    assert "no PROXY" in run("auto", [b"PO"])
    assert "no PROXY" in run("auto", [b"\r\n\r\n\0\r\nQUIT\r"])


PIECES = st.sampled_from(
    [
        *(data for _, data, _ in (*GOOD.values(), *BAD.values())),
        b"PROXY TCP4 ", b"192.0.2.1 ", b" ", b"65535", b"\r\n", b"\n", MARK, b"\x21\x11",
        b"\0\x0c", IPV4,
    ]
)  # fmt: skip


@given(
    st.sampled_from(["v1", "v2", "auto"]),
    st.lists(PIECES | st.binary(max_size=20), max_size=5).map(b"".join),
    st.lists(st.integers(0, 1200), max_size=4),
)
def test_whatever_comes_only_a_protocol_error_escapes_and_cuts_change_nothing(version, data, cuts):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    whole = run(version, [data])
    assert run(version, [piece for piece in pieces if piece]) == whole
    assert run(version, [bytes([byte]) for byte in data]) == whole


def test_a_header_keeps_a_bounded_number_of_bytes():
    header = ProxyHeader("v2")
    header.receive(v2(0x20, length=1024))
    header.receive(bytes(1023))
    assert not header.done
    assert header.receive(bytes(100_000)) == 1
    assert header.done
