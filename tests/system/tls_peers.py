"""What TLS needs of a test: certificates, made by openssl when they are needed, and clients.

``Https`` is HTTP inside of TLS as any client speaks it.  ``Wire`` lets a test decide
which bytes go over the wire, and when.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from clients import EOF, PEERS, Address, Http, Peer

#: How a connection ended that TLS did not end: its answer may be cut.
CUT = "cut without close_notify"

IDENTIFIERS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid"
LOCAL = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Authority:
    """Issues certificates into ``folder``; its own is ``NAME.pem``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if not shutil.which("openssl"):
            (pytest.fail if os.environ.get("CI") else pytest.skip)("openssl is not installed")
        self.folder = folder
        self.name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(
            *"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30".split(),
            *("-keyout", self._key, "-out", self.certificate, "-subj", f"/CN=Test {name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(
        self,
        name: str,
        *,
        subject: str = "/CN=localhost",
        days: int = 10,
        extension: str = LOCAL,
        options: tuple[str, ...] = (),
    ) -> tuple[Path, Path]:
        """A certificate and its key; below 0 days it has expired."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        # Without these Python 3.13 takes no certificate (RFC 5280 section 4.2.1).
        extensions.write_text(f"{extension}\n{IDENTIFIERS}\n")
        self._openssl(
            *"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -utf8".split(),
            *("-keyout", key, "-out", request, "-subj", subject, *options),
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-days", str(days), "-out", certificate, "-extfile", extensions),
        )
        return certificate, key

    def text(self, certificate: Path, *options: str) -> str:
        """What openssl prints of a certificate."""
        return self._openssl("x509", "-noout", "-in", certificate, *options).rstrip("\n")

    def context(
        self, certificate: Path | None = None, key: Path | None = None, **attributes
    ) -> ssl.SSLContext:
        """That of a client who trusts this authority, perhaps with a certificate of its own."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        for name, value in attributes.items():
            setattr(context, name, value)
        return context

    @staticmethod
    def _openssl(*words: str | Path) -> str:
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Https(Http):
    """HTTP/1.1 inside of TLS; ``ended`` is EOF only after the server's close_notify."""

    #: What a client knows that is not told otherwise.
    default: ssl.SSLContext

    def __init__(
        self,
        address: Address,
        *,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        before: bytes = b"",
        **options,
    ) -> None:
        """``before``: what is sent ahead of TLS.  Raises ssl.SSLError if there is no connection."""
        super().__init__(address, **options)
        self.sock.sendall(before)
        self.sock = (context or self.default).wrap_socket(
            self.sock, server_hostname="localhost", suppress_ragged_eofs=False, session=session
        )

    def fill(self, size: int = 65536) -> bool:
        try:
            return super().fill(size)
        except ssl.SSLEOFError:
            self.ended = CUT
        except ssl.SSLZeroReturnError:
            self.ended = EOF
        return False

    def finish(self) -> None:
        """End the connection and not TLS; an SSLSocket would forget that there was TLS."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Send close_notify, and leave what the server still sends unread."""
        self.sock.settimeout(0)
        with pytest.raises(ssl.SSLError):
            self.sock.unwrap()  # the server's is not there yet
        self.sock.settimeout(20)


PEERS["https"] = Https


class Wire(Peer):
    """A TLS client whose bytes go nowhere by themselves: ``sealed`` has what is to be sent."""

    def __init__(self, address: Address, context: ssl.SSLContext, **options) -> None:
        super().__init__(address, **options)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def sealed(self) -> bytes:
        """What TLS wants to have sent."""
        return self._outgoing.read()

    def seal(self, data: bytes, size: int = 1 << 14) -> bytes:
        """``data`` in records of ``size`` bytes."""
        for start in range(0, len(data), size):
            self.tls.write(data[start : start + size])
        return self.sealed()

    def handshake(self, step: int = 1 << 14) -> None:
        """All of it, ``step`` bytes at a time."""
        while True:
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            data = self.sealed()
            for start in range(0, len(data), step):
                self.send(data[start : start + step])
            if done:
                return
            assert self._receive(), f"the handshake ended: {self.ended}"

    def _receive(self) -> bool:
        """Hand what arrives to TLS; False at the end of the connection."""
        there = self.fill()
        self._incoming.write(self.take(len(self.buffer)))
        return there

    def open(self) -> bytes:
        """Wait for something to decrypt; b"" at the end of the connection."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if not self._receive():
                    return b""

    def until_open(self, mark: bytes) -> bytes:
        """What is decrypted up to the first piece with ``mark`` in it."""
        data = b""
        while mark not in data:
            piece = self.open()
            assert piece, f"no {mark!r} in {data!r}"
            data += piece
        return data
