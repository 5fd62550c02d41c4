"""docs/reference/smuggling.md, made of the vectors."""

from pathlib import Path

from smuggling import CLOSED, Section, Vector, spelt
from smuggling_bodies import BODIES
from smuggling_heads import HEADS
from smuggling_variables import VARIABLES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "smuggling.md"

SECTIONS = [*BODIES, *HEADS, *VARIABLES]

_INTRODUCTION = """\
# Bytes that servers disagree about

A request is smuggled where two servers on its way see its end at different places. This page \
lists what RFC 9112 (sections 6 and 11) and the literature about such attacks know, and what \
the gateway makes of each: {count} vectors, of which {refused} are refused.

The page is made of the vectors of `tests/system/smuggling*.py` by `python \
tools/smuggling_table.py`; `tests/system/test_smuggling.py` sends each of them to a running \
gateway, whole and byte by byte, with one thread and with four, and fails if anything else \
comes out than what stands here, or if the application was called once more than it was \
answered for.

- *Answer*: the statuses that come back, interim ones too.
- *Application*: what it was called with: method, target, body, and the fields that it got \
besides Host. It is never called with a part of a body.
- *Connection*: behind each vector follows one more request. *kept*: that was answered as what \
it is, so both sides agree where the vector ended. *closed*: nothing is read behind the vector. \
*waits*: the request is not complete, and what follows belongs to its body.
- *Why*: the clause, such as 9112 6.3 (4) for item 4 of section 6.3 of RFC 9112.

`<hidden>` stands for a whole request, `GET /hidden HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n`. If it is \
in the column *Application* as `GET /hidden`, it was taken for a request; if it is there as a \
body, it was not.
"""

_TABLE = """\
| Sent | Answer | Application | Connection | Why |
| --- | --- | --- | --- | --- |
"""


def _code(text: str) -> str:
    """Text in a cell of a table as it is."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _sent(vector: Vector) -> str:
    code = _code(spelt(vector.shown)) if vector.shown else ""
    return ": ".join(part for part in (vector.name, code) if part) or "(empty)"


def row(vector: Vector) -> str:
    *items, last = vector.outcome
    connection = last
    if isinstance(last, int):
        items.append(last)
        connection = CLOSED
    calls = [item for item in items if isinstance(item, str)]
    answers = ", ".join(str(item) if isinstance(item, int) else "200" for item in items)
    cells = (
        _sent(vector),
        answers or "none",
        ", ".join(map(_code, calls)) or "not called",
        str(connection),
        vector.why.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |\n"


def _is_refused(vector: Vector) -> bool:
    return any(isinstance(item, int) and item >= 400 for item in vector.outcome)


def page() -> str:
    vectors = [vector for section in SECTIONS for vector in section.vectors]
    parts = [
        _INTRODUCTION.format(count=len(vectors), refused=sum(map(_is_refused, vectors))),
        *map(_section, SECTIONS),
    ]
    return "\n".join(parts)


def _section(section: Section) -> str:
    text = f"{section.text}\n\n" if section.text else ""
    rows = "".join(map(row, section.vectors))
    return f"## {section.title}\n\n{text}{_TABLE}{rows}"
