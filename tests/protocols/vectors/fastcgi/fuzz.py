"""Half-right FastCGI: any records, of few ids and mostly of good form."""

from fastcgi_words import PARAMS, STDIN, ask, begin, block, params, rec
from hypothesis import strategies as st

CONTENTS = st.one_of(
    st.sampled_from([
        b"", b"", b"\0\1\1\0\0\0\0\0", b"\0\3\1\0\0\0\0\0", b"\0\2\0\0\0\0\0\0",
        block({"CONTENT_LENGTH": "3"}), block({"A": "b"}), block({"FCGI_DATA_LENGTH": "2"}), b"abc",
        block({"FCGI_MPXS_CONNS": ""}), b"\x80\0\0\1", b"ab",
    ]),
    st.binary(max_size=12),
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 1, 1, 2, 3, 65535])
RECORDS = st.builds(
    rec,
    st.integers(0, 12),
    NUMBERS,
    CONTENTS,
    st.sampled_from([0, 0, 1, 8]),
    st.sampled_from([1] * 30 + [0, 2]),
)
REQUESTS = st.builds(
    lambda number, role, flags, length, body: ask(
        {"CONTENT_LENGTH": str(length)}, body, number=number, role=role, flags=flags
    ),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(-1, 4),
    st.binary(max_size=4),
)
STRUCTURED = st.lists(st.one_of(RECORDS, RECORDS, REQUESTS), min_size=1, max_size=12).map(b"".join)

LONG = {
    "one record of parameters": lambda n: begin() + params({"A": "x" * (n - 6)}),
    "many parameters": lambda n: begin() + params([("HTTP_X", "x" * 92)] * (n // 100)),
    "small records of parameters": lambda n: (
        begin() + rec(PARAMS, 1, block({"A": "x" * 92})) * (n // 100) + params({})
    ),
    "one record of body": lambda n: begin() + params({}) + rec(STDIN, 1, b"x" * n),
    "small records of body": lambda n: begin() + params({}) + rec(STDIN, 1, b"x" * 12) * (n // 20),
}
