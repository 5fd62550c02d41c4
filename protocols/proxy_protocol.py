"""The PROXY protocol, versions 1 and 2: what a load balancer says of a connection.

One header stands before everything else, TLS too, and tells the addresses of
the client's own connection.  The parser takes exactly the bytes of the header,
whatever the cuts; what follows belongs to the protocol of the bind.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from protocols.model import ProtocolError

#: What ``proxy_protocol`` may be.
VERSIONS = ("off", "v1", "v2", "auto")

_V1_MARK = b"PROXY "
#: Section 2.1: the longest line, with its CRLF.
_V1_LONGEST = 107
_V2_MARK = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = Struct(">BBH")
_V2_HEAD_SIZE = len(_V2_MARK) + _V2_HEAD.size
#: Unix addresses (216 bytes), and the TLVs that balancers send, fit in.
_V2_LONGEST = 1024
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_TCP4_ADDRESSES, _TCP6_ADDRESSES = Struct(">4s4sHH"), Struct(">16s16sHH")
#: Other families that version 2 knows: UNSPEC, UDP and unix sockets.
_OTHER_FAMILIES = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})

_SSL = 0x20
_CLIENT_SSL = 0x01


class Announced:
    """The client's connection as a balancer tells of it.

    ``tls``: whether the client spoke TLS with the balancer, None if it does not say.
    """

    __slots__ = ("destination", "destination_port", "source", "source_port", "tls")

    def __init__(
        self,
        source: str,
        source_port: int,
        destination: str,
        destination_port: int,
        tls: bool | None = None,
    ) -> None:
        self.source = source
        self.source_port = source_port
        self.destination = destination
        self.destination_port = destination_port
        self.tls = tls

    def __eq__(self, other: object) -> bool:
        if type(other) is not Announced:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Announced({self.source!r}, {self.source_port}, {self.destination!r}, "
            f"{self.destination_port}, {self.tls})"
        )


class ProxyHeader:
    """Gathers one header.

    ``done`` is set at its end; ``announced`` is then None if the connection's own
    addresses stand (UNKNOWN, LOCAL, and families without addresses of the internet).
    """

    def __init__(self, version: str) -> None:
        """``version``: v1, v2 or auto."""
        marks = {"v1": (_V1_MARK,), "v2": (_V2_MARK,), "auto": (_V1_MARK, _V2_MARK)}
        self._version = version
        self._marks = marks[version]
        self._buffer = b""
        self.done = False
        self.announced: Announced | None = None

    @property
    def begun(self) -> bool:
        """Whether a part of a header has come."""
        return bool(self._buffer)

    def receive(self, data: bytes) -> int:
        """How many bytes of ``data`` belong to the header.  Raises ProtocolError."""
        before = len(self._buffer)
        buffer = self._buffer + data[: _V2_LONGEST + _V2_HEAD_SIZE]
        end = self._end(buffer)
        if end:
            self.done = True
            self._buffer = buffer[:end]
            return end - before
        self._buffer = buffer
        return len(data)

    def _end(self, buffer: bytes) -> int:
        """Where the header ends, once it has all come; 0 before."""
        if not any(mark.startswith(buffer[: len(mark)]) for mark in self._marks):
            wanted = "v1 or v2" if self._version == "auto" else self._version
            raise ProtocolError(f"the connection starts with no PROXY protocol header ({wanted})")
        if buffer.startswith(_V1_MARK):
            return self._end_of_v1(buffer)
        if len(buffer) >= _V2_HEAD_SIZE:
            return self._end_of_v2(buffer)
        return 0

    def _end_of_v1(self, buffer: bytes) -> int:
        end = buffer.find(b"\n", 0, _V1_LONGEST)
        if end < 0:
            if len(buffer) >= _V1_LONGEST:
                raise _malformed("a line of more than 107 bytes")
            return 0
        if buffer[end - 1] != 13:
            raise _malformed("a line feed without a carriage return")
        self.announced = _read_line(buffer[len(_V1_MARK) : end - 1])
        return end + 1

    def _end_of_v2(self, buffer: bytes) -> int:
        length: int
        command, family, length = _V2_HEAD.unpack_from(buffer, len(_V2_MARK))
        if command not in (_LOCAL, _PROXY):
            raise _malformed(f"version and command 0x{command:02x}")
        if family not in (_TCP4, _TCP6) and family not in _OTHER_FAMILIES:
            raise _malformed(f"address family 0x{family:02x}")
        if length > _V2_LONGEST:
            raise _malformed(f"{length} bytes, and at most {_V2_LONGEST} are taken")
        end = _V2_HEAD_SIZE + length
        if len(buffer) < end:
            return 0
        if command == _PROXY:
            self.announced = _read_block(family, buffer[_V2_HEAD_SIZE:end])
        return end


def _malformed(reason: str) -> ProtocolError:
    return ProtocolError(f"malformed PROXY protocol header: {reason}")


def _read_line(line: bytes) -> Announced | None:
    """Section 2.1: TCP4 or TCP6, two addresses, two ports; or UNKNOWN and whatever follows."""
    family, _, rest = line.decode("latin-1").partition(" ")
    if family == "UNKNOWN":
        return None
    if family not in ("TCP4", "TCP6"):
        raise _malformed(f"the family {family[:20]!r}")
    kind = IPv4Address if family == "TCP4" else IPv6Address
    parts = rest.split(" ")
    if len(parts) != 4:
        raise _malformed("it has not two addresses and two ports")
    if "%" in rest:  # behind which Python takes any text
        raise _malformed("an address has a zone")
    try:
        source, destination = (str(kind(text)) for text in parts[:2])
    except ValueError:
        raise _malformed(f"an address is none of {family}") from None
    if not all(_is_port(text) for text in parts[2:]):
        raise _malformed("a port is no number from 0 to 65535")
    return Announced(source, int(parts[2]), destination, int(parts[3]))


def _is_port(text: str) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= 5
    return digits and int(text) <= 65535 and str(int(text)) == text


def _read_block(family: int, block: bytes) -> Announced | None:
    """Section 2.2: addresses of a fixed size, then TLVs."""
    if family in _OTHER_FAMILIES:
        return None
    layout = _TCP4_ADDRESSES if family == _TCP4 else _TCP6_ADDRESSES
    if len(block) < layout.size:
        raise _malformed(f"{len(block)} bytes of addresses where {layout.size} belong")
    source, destination, source_port, destination_port = layout.unpack_from(block)
    kind = IPv4Address if family == _TCP4 else IPv6Address
    tls = _read_tls(block[layout.size :])
    return Announced(str(kind(source)), source_port, str(kind(destination)), destination_port, tls)


def _read_tls(block: bytes) -> bool | None:
    """What PP2_TYPE_SSL says (section 2.2.6); None if it is not there."""
    tls = None
    position = 0
    while position < len(block):
        head = block[position : position + 3]
        size = int.from_bytes(head[1:], "big")
        value = block[position + 3 : position + 3 + size]
        if len(head) < 3 or len(value) < size:
            raise _malformed("a TLV is cut off")
        if head[0] == _SSL:
            if size < 5:
                raise _malformed("its TLV about TLS is too short")
            tls = bool(value[0] & _CLIENT_SSL)
        position += 3 + size
    return tls
