"""The server's certificate, and those of its clients: files to a context, a peer to variables."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

from gateway.kinds import VERIFICATION, SettingError
from gateway.settings import Settings

#: Of TLS 1.2 only what has forward secrecy and authenticated encryption.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_ENDING = b"PRIVATE KEY-----"  # of PKCS #8, and of the older forms for RSA and EC

#: Short names of attributes of a distinguished name (RFC 4514 section 3, else OpenSSL's); others
#: are called by their long names or numbers.
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}

#: What RFC 4514 section 2.4 has escaped wherever it stands.
_SPECIAL = frozenset('"+,;<>\\')


# The server


def load(settings: Settings, sources: Mapping[str, str]) -> ssl.SSLContext:
    """The context for connections of clients; reads the files.  Raises SettingError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_alpn_protocols(["http/1.1"])
    _Files(settings, sources).load_into(context)
    return context


class _Files:
    """The settings about TLS, as texts and as files."""

    def __init__(self, settings: Settings, sources: Mapping[str, str]) -> None:
        self._settings = settings
        self._sources = sources

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises SettingError."""
        settings = self._settings
        try:
            context.set_ciphers(settings.ciphers or _CIPHERS)
        except ssl.SSLError:
            raise self._error("ciphers", "OpenSSL knows none of these for TLS 1.2") from None
        self._load_own(context)
        if settings.ca_certs:
            path = self._checked("ca_certs", _CERTIFICATE, "a certificate")
            try:
                context.load_verify_locations(path)
            except ssl.SSLError as error:
                raise self._error("ca_certs", reason_of(error)) from None
        context.verify_mode = ssl.VerifyMode(VERIFICATION.index(settings.cert_reqs))

    def _load_own(self, context: ssl.SSLContext) -> None:
        certificate = self._checked("certfile", _CERTIFICATE, "a certificate")
        where = "keyfile" if self._settings.keyfile else "certfile"
        key = self._checked(where, _ENDING, "a private key")

        def refuse() -> str:  # OpenSSL would ask on the terminal
            raise self._error(where, "the private key has a passphrase, which nobody would give")

        try:
            context.load_cert_chain(certificate, key, refuse)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = "the private key is not that of the certificate"
                raise self._error(where, reason) from None
            raise self._error("certfile", reason_of(error)) from None

    def _checked(self, name: str, mark: bytes, what: str) -> str:
        """The path of a file, which has what it should; OpenSSL does not say which one has not."""
        path = os.path.join(self._settings.chdir or "", getattr(self._settings, name))
        try:
            with open(path, "rb") as file:
                content = file.read()
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise self._error(name, reason) from None
        if mark not in content:
            raise self._error(name, f"{what} in PEM form is missing in it")
        return path

    def _error(self, name: str, reason: str) -> SettingError:
        return SettingError(name, getattr(self._settings, name), reason, self._sources[name])


def reason_of(error: ssl.SSLError) -> str:
    """What OpenSSL says, as people would."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate: {error.verify_message}"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    version, alert, said = reason.partition(" alert ")
    if alert and version in ("sslv3", "tlsv1", "tlsv13"):
        return f"the peer says: {said}"
    return reason


# Clients


def variables(connection: ssl.SSLObject) -> dict[str, str]:
    """SSL_* of a connection as Apache's mod_ssl calls and writes them."""
    cipher = connection.cipher()
    found = {
        "SSL_PROTOCOL": connection.version() or "",
        "SSL_CIPHER": cipher[0] if cipher else "",
        "SSL_CLIENT_VERIFY": "NONE",
    }
    certificate: dict[str, Any] | None = connection.getpeercert()
    encoded = connection.getpeercert(binary_form=True)
    if certificate and encoded:  # verified: with any other there is no connection
        found |= {
            "SSL_CLIENT_VERIFY": "SUCCESS",
            "SSL_CLIENT_S_DN": distinguished_name(certificate["subject"]),
            "SSL_CLIENT_I_DN": distinguished_name(certificate["issuer"]),
            "SSL_CLIENT_M_SERIAL": certificate["serialNumber"],
            "SSL_CLIENT_V_START": certificate["notBefore"],
            "SSL_CLIENT_V_END": certificate["notAfter"],
            "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(encoded),
        }
    return found


def distinguished_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A name as in RFC 2253, the most specific part first; UTF-8 as native string (PEP 3333)."""
    parts = (
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in reversed(part))
        for part in reversed(name)
    )
    return ",".join(parts).encode("utf-8", "replace").decode("latin-1")


def _escaped(value: str) -> str:
    text = "".join(
        f"\\{char}" if char in _SPECIAL else f"\\{ord(char):02X}" if char < " " else char
        for char in value
    )
    if text.startswith((" ", "#")):
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text
