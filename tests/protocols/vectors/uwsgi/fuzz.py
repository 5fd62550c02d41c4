"""Half-right uwsgi: packets of variables that mean something."""

from hypothesis import strategies as st
from uwsgi_words import ask, packet, pairs

NAMES = st.sampled_from(
    "CONTENT_LENGTH HTTP_CONTENT_LENGTH HTTP_TRANSFER_ENCODING HTTP_X HTTP_COOKIE REQUEST_METHOD "
    "A HTTP_TE ".split(" ")
)
VALUES = st.sampled_from(["0", "1", "5", "", "x", "-1", "05", "HEAD", "1" * 4400, "\0", "\xff"])
CONTENTS = st.builds(
    lambda first, rest, cut: pairs([*first, *rest])[: cut or None],
    st.sampled_from([[("CONTENT_LENGTH", "3")]] * 3 + [[]]),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.sampled_from([0] * 6 + [-1, -2]),
)
STRUCTURED = st.builds(
    lambda content, wrap, body: wrap(content) + body,
    CONTENTS,
    st.sampled_from(
        [packet] * 6
        + [lambda c: packet(c, 5), lambda c: packet(c, 0, 1), lambda c: packet(c + b"\0")]
    ),
    st.binary(max_size=6),
)

LONG = {
    "one variable": lambda n: ask({"A": "x" * (n - 30)}),
    "many variables": lambda n: ask({}, b"", *[("HTTP_X", "x" * 90)] * ((n - 30) // 100)),
    "a body": lambda n: ask({}, b"x" * n),
}
