"""Half-right SCGI: netstrings of variables that mean something."""

from hypothesis import strategies as st
from scgi_words import ask, netstring, pairs

NAMES = st.sampled_from(
    ["CONTENT_LENGTH", "SCGI", "HTTP_CONTENT_LENGTH", "HTTP_X", "HTTP_COOKIE", "A", "", "HTTP_TE"]
)
VALUES = st.sampled_from(["0", "1", "5", "", "x", "-1", "05", "1" * 4400, "\0", "\xff"])
CONTENTS = st.builds(
    lambda first, rest: pairs([*first, *rest]),
    st.sampled_from([[("CONTENT_LENGTH", "3"), ("SCGI", "1")]] * 3 + [[]]),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
)
STRUCTURED = st.builds(
    lambda content, wrap, body: wrap(content) + body,
    CONTENTS,
    st.sampled_from([netstring] * 5 + [lambda c: b"0" + netstring(c), lambda c: netstring(c)[:-1]]),
    st.binary(max_size=6),
)

LONG = {
    "one variable": lambda n: ask({"A": "x" * (n - 30)}),
    "many variables": lambda n: ask({}, b"", *[("HTTP_X", "x" * 91)] * ((n - 30) // 100)),
    "a body": lambda n: ask({}, b"x" * n),
}
