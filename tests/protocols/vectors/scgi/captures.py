"""SCGI as nginx and Apache send it.

``captures/`` holds whole recorded connections; only names of folders of the recording
machine were replaced, by others of the same length.
"""

from pathlib import Path

from codec_captures import captures, environ_of
from codec_harness import Case, Seen


def case(name: str, data: bytes, notes: dict) -> Case:
    digits, _, rest = data.partition(b":")
    fields = rest[: int(digits)].decode("latin-1").split("\0")[:-1]
    sent = [list(item) for item in zip(fields[::2], fields[1::2], strict=True)]
    assert notes["params"] == sent
    body = rest[int(digits) + 1 :]
    environ = environ_of(sent)
    del environ["SCGI"]
    if name == "nginx-scgi-unbuffered-wrong-length":  # front-ends, surprise 1
        return Case(f"capture: {name}", data, refused="400 CONTENT_LENGTH is 10 but the client")
    seen = Seen(environ, length=len(body), body=body, keep_alive=False)
    return Case(f"capture: {name}", data, [seen], closing=True)


CASES = [case(*capture) for capture in captures(Path(__file__).parent / "captures")]
