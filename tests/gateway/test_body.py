"""Request bodies in memory or in a temporary file, and a disk that is full."""

import os
import resource
from contextlib import contextmanager, suppress
from io import BytesIO, TextIOWrapper, UnsupportedOperation

import pytest

from gateway.body import NO_BODY, Intake, Spool
from gateway.budget import Budget
from gateway.settings import Settings
from protocols.model import Body, Data, Request


@contextmanager
def full_disk(size):
    """No file can grow beyond ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("pieces", [[], [b""], [b"0123456789"], [b"01234", b"56789"]])
def test_what_fits_stays_in_memory(tmp_path, pieces):
    spool = Spool(10, str(tmp_path), Budget())
    for piece in pieces:
        spool.write(piece)
    file = spool.finish()
    assert isinstance(file, BytesIO)
    assert spool.size == len(b"".join(pieces))
    assert file.read() == b"".join(pieces)


@pytest.mark.parametrize("limit", [150, 299, 300, 301])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_many_small_pieces_are_one_body(tmp_path, limit, size):
    body = bytes(range(150)) * 2
    spool = Spool(limit, str(tmp_path), Budget())
    for at in range(0, len(body), size):
        spool.write(body[at : at + size])
    file = spool.finish()
    assert (isinstance(file, BytesIO)) == (limit >= 300)
    assert spool.size == 300
    assert file.read() == body


@pytest.mark.parametrize(
    ("limit", "pieces"),
    [
        (10, [b"01234567890"]),
        (10, [b"0123456789", b"0"]),
        (10, [b"01234", b"567890", b"1", b"2" * 100_000]),
        (0, [b"0"]),
        (0, [b"", b"0", b"1"]),
    ],
)
def test_what_does_not_fit_goes_to_a_file_without_a_name(tmp_path, limit, pieces):
    spool = Spool(limit, str(tmp_path), Budget())
    for piece in pieces:
        spool.write(piece)
    file = spool.finish()
    assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert spool.size == len(b"".join(pieces))
    assert file.read() == b"".join(pieces)
    assert file.read() == b""
    spool.close()
    assert file.closed


def test_full_disk_is_an_error_and_closing_is_none(tmp_path):
    spool = Spool(10, str(tmp_path), Budget())
    with full_disk(100_000):
        spool.write(b"x" * 60_000)
        with pytest.raises(OSError, match="too large"):
            spool.write(b"x" * 60_000)
        spool.close()


def test_full_disk_is_told_at_the_latest_when_the_body_is_whole(tmp_path):
    """Small pieces wait in the file's buffer."""
    spool = Spool(10, str(tmp_path), Budget())
    with full_disk(1000):
        for _ in range(11):
            spool.write(b"x" * 100)
        with pytest.raises(OSError, match="too large"):
            spool.finish()
        with suppress(OSError):
            spool.close()


def test_no_folder_is_an_error(tmp_path):
    spool = Spool(10, str(tmp_path / "nowhere"), Budget())
    spool.write(b"0123456789")
    with pytest.raises(OSError, match="No such file"):
        spool.write(b"0")
    spool.close()


def test_intake_keeps_body_and_filter_data_apart():
    request = Request(1, {}, 4, b"", True)
    intake = Intake(request, Settings(), Budget(), 0.0)
    assert not intake.take(Body(1, b"bo", True))
    assert not intake.take(Data(1, b"fi", True))
    assert not intake.take(Body(1, b"dy", True))
    assert intake.take(Data(1, b"le", False))
    assert intake.size == 4
    assert intake.finish().read() == b"body"
    assert request.environ["gateway.fastcgi_data"].read() == b"file"
    intake.close()


def test_the_body_of_requests_without_one_is_shared_and_cannot_be_changed():
    for attempt in (
        lambda: NO_BODY.write(b"x"),
        lambda: NO_BODY.writelines([b"x"]),
        lambda: NO_BODY.truncate(3),
        lambda: setattr(NO_BODY, "seen", True),
    ):
        with pytest.raises((UnsupportedOperation, AttributeError)):
            attempt()
    assert not NO_BODY.writable()
    NO_BODY.seek(5)
    with NO_BODY as body:
        assert body.read() == body.read(1) == body.readline() == b""
    wrapped = TextIOWrapper(NO_BODY)
    assert wrapped.read() == ""
    wrapped.close()
    assert not NO_BODY.closed
    assert (list(NO_BODY), NO_BODY.tell()) == ([], 0)
