"""uwsgi as nginx (``uwsgi_pass`` with its stock uwsgi_params) and mod_proxy_uwsgi send it.

``captures/`` holds whole recorded connections.
"""

from pathlib import Path

from codec_captures import captures, environ_of
from codec_harness import Case, Seen


def pairs(block: bytes) -> list[list[str]]:
    """The variables of a block, decoded here a second time."""
    texts, at = [], 0
    while at < len(block):
        size = block[at] + 256 * block[at + 1]
        texts.append(block[at + 2 : at + 2 + size].decode("latin-1"))
        at += 2 + size
    return [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def case(name: str, data: bytes, notes: dict) -> Case:
    size = notes["datasize"]
    assert (data[0], data[1] + 256 * data[2], data[3]) == (0, size, 0)
    assert pairs(data[4 : 4 + size]) == notes["params"]
    body = data[4 + size :]
    environ = environ_of(notes["params"])
    seen = Seen(environ, length=len(body), body=body, keep_alive=False)
    return Case(f"capture: {name}", data, [seen], closing=True)


CASES = [case(*capture) for capture in captures(Path(__file__).parent / "captures")]
