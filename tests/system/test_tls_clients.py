"""Certificates of clients, and what the application is told of the connection."""

import json
import ssl
import subprocess

import pytest
from clients import EOF
from tls_peers import Authority, Wire

#: What is text of the environ, and for POST how long the body was.
APP = """
import json

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()]
"""

SUBJECT = '/C=XY/O=Snake Oil, Ltd./OU=a+b/OU=second/CN=Zoë <z\\\\"> /emailAddress=z@example.org'
CLIENT = "extendedKeyUsage=clientAuth"

NAMES = {"SSL_PROTOCOL", "SSL_CIPHER", "SSL_CLIENT_VERIFY"}
OF_A_CLIENT = {
    f"SSL_CLIENT_{name}" for name in ("S_DN", "I_DN", "M_SERIAL", "V_START", "V_END", "CERT")
}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    """Issues the certificates of clients; it is not the server's authority."""
    return Authority(tmp_path_factory.mktemp("clients"), "issuer")


@pytest.fixture(scope="module")
def client(issuer):
    return issuer.issue("client", subject=SUBJECT, extension=CLIENT)


@pytest.fixture(scope="module", params=["optional", "required"])
def verifying(request, serve_module, certified, issuer, threads):
    ca_certs = ("--ca-certs", str(issuer.certificate), "--cert-reqs", request.param)
    server = serve_module(APP, "--threads", threads, *certified, *ca_certs, protocols=("https",))
    server.mode = request.param
    return server


def environ_of(peer):
    return json.loads(peer.ask("/").body)


def test_without_a_question_there_is_no_answer(serve, certified, authority, client):
    """A certificate that was not asked for is not sent."""
    server = serve(APP, *certified, protocols=("https", "http"))
    for context in (authority.context(), authority.context(*client)):
        with server.connect("https", context=context) as peer:
            environ = environ_of(peer)
            assert {name for name in environ if name.startswith("SSL_")} == NAMES
            assert environ["SSL_CLIENT_VERIFY"] == "NONE"
            assert environ["SSL_CIPHER"] == peer.sock.cipher()[0]
            assert environ["SSL_PROTOCOL"] == peer.sock.version() == "TLSv1.3"
            assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")
            assert environ["SERVER_PORT"] == str(server.addresses["https", "tcp"][1])
    context = authority.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    with server.connect("https", context=context) as peer:
        environ = environ_of(peer)
        assert environ["SSL_PROTOCOL"] == "TLSv1.2"
        assert environ["SSL_CIPHER"].startswith("ECDHE-ECDSA-")
    with server.connect("https", "unix") as peer:
        environ = environ_of(peer)
        assert (environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("443", "")
    with server.connect("http") as peer:
        environ = environ_of(peer)
        assert environ["wsgi.url_scheme"] == "http"
        assert not [name for name in environ if name.startswith("SSL_") or name == "HTTPS"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_with_a_certificate(verifying, authority, issuer, client, version):
    context = authority.context(*client, maximum_version=version)
    with verifying.connect("https", context=context) as peer:
        environ = environ_of(peer)
        assert environ_of(peer) == environ  # of every request of the connection
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    certificate = client[0]
    text = "".join(certificate.read_text().partition("-----BEGIN")[1:])
    assert environ["SSL_CLIENT_CERT"] == text
    named = ("-nameopt", "RFC2253,-esc_msb,utf8")
    subject = issuer.text(certificate, "-subject", *named).removeprefix("subject=")
    assert environ["SSL_CLIENT_S_DN"].encode("latin-1").decode() == subject
    assert 'Zoë \\<z\\\\\\"\\>\\ ' in subject  # openssl means what we mean
    assert environ["SSL_CLIENT_I_DN"] == "CN=Test issuer"
    assert environ["SSL_CLIENT_M_SERIAL"] == issuer.text(certificate, "-serial").split("=")[1]
    assert environ["SSL_CLIENT_V_START"] == issuer.text(certificate, "-startdate").split("=")[1]
    assert environ["SSL_CLIENT_V_END"] == issuer.text(certificate, "-enddate").split("=")[1]
    assert {name for name in environ if name.startswith("SSL_")} == NAMES | OF_A_CLIENT


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate(verifying, authority, version):
    context = authority.context(maximum_version=version)
    since = len(verifying.log)
    if verifying.mode == "optional":
        with verifying.connect("https", context=context) as peer:
            environ = environ_of(peer)
        assert environ["SSL_CLIENT_VERIFY"] == "NONE"
        assert {name for name in environ if name.startswith("SSL_")} == NAMES
        return
    refused(verifying, context, r"certificate required|handshake failure")
    verifying.wait_for_log("peer did not return a certificate", since=since)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("stranger", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("server", "unsuitable certificate purpose"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_a_certificate_that_does_not_verify(
    verifying, authority, issuer, tmp_path, case, reason, version
):
    """There is no connection, also where a certificate is optional."""
    if case == "stranger":
        pair = Authority(tmp_path, "other").issue("client", extension=CLIENT)
    elif case == "expired":
        pair = issuer.issue("expired", extension=CLIENT, days=-1)
    elif case == "server":
        pair = issuer.issue("of-a-server", extension="extendedKeyUsage=serverAuth")
    else:
        other = Authority(tmp_path, "alone")
        pair = (other.certificate, tmp_path / "alone.key")
    since = len(verifying.log)
    context = authority.context(*pair, maximum_version=version)
    refused(verifying, context, r"(?i)alert")
    verifying.wait_for_log(
        rf"the TLS handshake failed: the peer's certificate: {reason}", since=since
    )
    assert "Traceback" not in verifying.log


def refused(server, context, alert):
    """The client gets an alert, and the application no request."""
    with Wire(server.addresses["https", "tcp"], context) as peer:
        with pytest.raises(ssl.SSLError, match=rf"(?i){alert.replace(' ', '[ _]')}"):
            ask(peer)
        peer.rest()
        assert peer.ended == EOF


def ask(peer):
    peer.handshake()
    # Of TLS 1.3 a client is through before the server has seen its certificate.
    peer.send(peer.seal(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    raise AssertionError(f"it was let in: {peer.open()}")


def test_no_client_says_this_of_itself(serve, certified, verifying):
    """Neither a header nor a certificate that is none changes what the application is told."""
    claims = [
        (name.replace("_", mark), "forged") for name in NAMES | OF_A_CLIENT for mark in ("_", "-")
    ]
    claims += [("HTTPS", "off"), ("SERVER_PORT", "1"), ("wsgi.url_scheme", "http")]
    server = serve(APP, *certified, "--header-map", "dangerous", protocols=("https", "http"))
    for protocol in ("https", "http"):
        with server.connect(protocol) as peer:
            plain = environ_of(peer)
            claimed = json.loads(peer.ask("/", headers=claims).body)
        assert {name: claimed[name] for name in plain} == plain
        assert all(name.startswith("HTTP_") for name in claimed.keys() - plain.keys())
    if verifying.mode == "optional":
        with verifying.connect("https") as peer:
            environ = json.loads(peer.ask("/", headers=claims).body)
        assert environ["SSL_CLIENT_VERIFY"] == "NONE"
        assert not OF_A_CLIENT & set(environ)


def test_a_resumed_session_has_its_certificate(serve, certified, issuer, client, authority):
    """In any worker; after a reload the handshake is whole again."""
    server = serve(
        APP, "--workers", "2", *certified, "--ca-certs", str(issuer.certificate),
        "--cert-reqs", "required", protocols=("https",),
    )  # fmt: skip
    context = authority.context(*client)
    with server.connect("https", context=context) as peer:
        whole = environ_of(peer)
        session = peer.sock.session
    for _ in range(10):
        with server.connect("https", context=context, session=session) as peer:
            environ = environ_of(peer)
            assert peer.sock.session_reused
            session = peer.sock.session
            for name in OF_A_CLIENT | NAMES:
                assert environ[name] == whole[name]
    since = len(server.log)
    server.kill(1)  # SIGHUP
    server.wait_for_log("reloaded: 2 workers", since=since)
    server.wait_for_log(r"worker \d+ left", 2, since=since)
    with server.connect("https", context=context, session=session) as peer:
        assert environ_of(peer)["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert not peer.sock.session_reused


def test_curl_and_openssl_agree(serve, certified, issuer, client, authority):
    """Clients that are not Python's."""
    server = serve(
        APP, *certified, "--ca-certs", str(issuer.certificate), "--cert-reqs", "required",
        protocols=("https",),
    )  # fmt: skip
    host, port = server.addresses["https", "tcp"]
    words = ["curl", "-sS", "--fail", "--cacert", authority.certificate, "--max-time", "20"]
    own = ["--cert", client[0], "--key", client[1]]
    url = f"https://{host}:{port}/"
    done = subprocess.run([*words, *own, url, url], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b'"SSL_CLIENT_VERIFY": "SUCCESS"') == 2
    done = subprocess.run([*words, url], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "alert" in done.stderr
