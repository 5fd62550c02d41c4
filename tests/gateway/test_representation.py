"""What of a file an answer has: RFC 9110 sections 13 and 14, field by field."""

import os
from email.utils import formatdate

import pytest

from gateway.representation import select

SIZE = 1000
MTIME = 1_700_000_000
TAG = f'"{MTIME * 10**9:x}-{SIZE:x}"'
DATE = formatdate(MTIME, usegmt=True)
EARLIER, LATER = (formatdate(MTIME + shift, usegmt=True) for shift in (-1, 1))


class Info:
    st_mtime = float(MTIME)
    st_mtime_ns = MTIME * 10**9

    def __init__(self, size=SIZE):
        self.st_size = size


def asked(status="200 OK", fields=(), size=SIZE, method="GET", **variables):
    environ = {"REQUEST_METHOD": method} | {
        f"HTTP_{name}": text for name, text in variables.items()
    }
    got = select(environ, status, list(fields), Info(size))
    return got, dict(got.fields)


def test_the_whole_file():
    got, fields = asked()
    assert (got.status, got.start, got.count) == ("200 OK", 0, SIZE)
    assert fields == {
        "ETag": TAG,
        "Last-Modified": DATE,
        "Accept-Ranges": "bytes",
        "Content-Length": "1000",
    }


def test_what_the_application_says_is_kept():
    own = [
        ("Content-Type", "text/x-own"),
        ("etag", 'W/"own"'),
        ("LAST-MODIFIED", EARLIER),
        ("Accept-Ranges", "none"),
        ("Content-Length", "0"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]
    got, _ = asked(fields=own)
    assert got.fields == [*own[:4], *own[5:], ("Content-Length", "1000")]


RANGES = [
    # Range, start, count (None: the whole file; 0: not satisfiable)
    ("bytes=0-99", 0, 100),
    ("bytes=0-0", 0, 1),
    ("bytes=999-", 999, 1),
    ("bytes=500-5000", 500, 500),
    ("bytes=500-999999999999999999", 500, 500),
    ("bytes=-1", 999, 1),
    ("bytes=-5000", 0, 1000),
    ("BYTES= 1-2 ", 1, 2),
    ("bytes=1000-", 0, 0),
    ("bytes=1000-1001", 0, 0),
    ("bytes=-0", 0, 0),
    ("bytes=2-1", 0, None),
    ("bytes=-", 0, None),
    ("bytes=", 0, None),
    ("bytes=a-b", 0, None),
    ("bytes=\u0661-", 0, None),
    ("bytes=0-1,5-6", 0, None),
    ("bytes=99999999999999999999-", 0, None),
    ("lines=0-1", 0, None),
    ("", 0, None),
]


@pytest.mark.parametrize(("text", "start", "count"), RANGES)
def test_a_range(text, start, count):
    got, fields = asked(RANGE=text)
    if count is None:
        assert (got.status, got.start, got.count) == ("200 OK", 0, SIZE)
        assert "Content-Range" not in fields
        return
    assert (got.start, got.count, fields["Content-Length"]) == (start, count, str(count))
    if count:
        assert got.status == "206 Partial Content"
        assert fields["Content-Range"] == f"bytes {start}-{start + count - 1}/1000"
    else:
        assert got.status == "416 Range Not Satisfiable"
        assert fields["Content-Range"] == "bytes */1000"


@pytest.mark.parametrize(
    ("text", "status"), [("bytes=0-", "416"), ("bytes=-5", "200"), ("bytes=-0", "416")]
)
def test_a_range_of_an_empty_file(text, status):
    got, _ = asked(size=0, RANGE=text)
    assert (got.status[:3], got.count) == (status, 0)


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_ranges_are_of_get_alone(method):
    got, _ = asked(method=method, RANGE="bytes=0-1")
    assert (got.status, got.count) == ("200 OK", SIZE)


@pytest.mark.parametrize(
    ("condition", "fields", "status"),
    [
        (TAG, [], "206"),
        ('"other"', [], "200"),
        (DATE, [], "200"),  # the tag is there for it
        ('"own"', [("ETag", '"own"')], "206"),
        ('W/"own"', [("ETag", 'W/"own"')], "200"),  # weak tags promise no same bytes
        ("", [], "200"),
    ],
)
def test_if_range(condition, fields, status):
    got, _ = asked(fields=fields, RANGE="bytes=0-1", IF_RANGE=condition)
    assert got.status[:3] == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({"IF_NONE_MATCH": TAG}, "304"),
        ({"IF_NONE_MATCH": f'"a,b", W/{TAG}'}, "304"),
        ({"IF_NONE_MATCH": "*"}, "304"),
        ({"IF_NONE_MATCH": '"other"'}, "200"),
        ({"IF_NONE_MATCH": "nonsense"}, "200"),
        ({"IF_MODIFIED_SINCE": DATE}, "304"),
        ({"IF_MODIFIED_SINCE": LATER}, "304"),
        ({"IF_MODIFIED_SINCE": EARLIER}, "200"),
        ({"IF_MODIFIED_SINCE": "yesterday"}, "200"),
        ({"IF_MODIFIED_SINCE": "Mon, 99 Nov 2026 99:99:99 GMT"}, "200"),
        ({"IF_MODIFIED_SINCE": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, "200"),
        ({"IF_NONE_MATCH": '"other"', "IF_MODIFIED_SINCE": LATER}, "200"),
        ({"IF_NONE_MATCH": TAG, "RANGE": "bytes=0-1"}, "304"),
    ],
)
def test_preconditions(variables, status, method):
    got, fields = asked(method=method, **variables)
    assert got.status[:3] == status
    assert fields["ETag"] == TAG
    if status == "304":
        assert got.count == 0
        assert "Content-Length" not in fields


def test_dates_without_a_zone_are_compared_with_none():
    """parsedate_to_datetime makes them naive, which Python compares with no other."""
    got, _ = asked(IF_MODIFIED_SINCE="Mon, 21 Nov 2033 00:00:00 -0000")
    assert got.status == "200 OK"


def test_an_unsafe_method_has_no_304():
    got, _ = asked(method="POST", IF_NONE_MATCH=TAG)
    assert got.status == "200 OK"


def test_a_range_that_the_application_took_is_taken_anew():
    own = [("Content-Range", "bytes 5-9/10"), ("Content-Length", "5")]
    got, fields = asked("206 Partial Content", own, RANGE="bytes=1-2")
    assert (got.status, fields["Content-Range"]) == ("206 Partial Content", "bytes 1-2/1000")
    got, fields = asked("206 Partial Content", own)
    assert (got.status, got.count) == ("200 OK", SIZE)
    assert "Content-Range" not in fields


@pytest.mark.parametrize("status", ["404 Not Found", "503 Service Unavailable"])
def test_a_page_for_an_error_is_whole(status):
    got, fields = asked(status, RANGE="bytes=0-1", IF_NONE_MATCH="*")
    assert (got.status, got.count, fields) == (status, SIZE, {"Content-Length": "1000"})


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
def test_no_content(status):
    got, fields = asked(status, [("ETag", '"own"')])
    assert (got.status, got.count, fields) == (status, 0, {"ETag": '"own"'})


def test_a_real_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    got = select({"REQUEST_METHOD": "GET"}, "200 OK", [], os.stat(file))
    assert got.count == 5
