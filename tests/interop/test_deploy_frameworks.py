"""A Flask and a Django application, with an everyday client, behind every file of deploy/."""

import hashlib

import pytest
import requests
from front_ends import WAYS


@pytest.fixture(
    params=[way for way in WAYS if way.transport == "tcp" or way.server != "direct"], ids=str
)
def site(request, servers):
    return servers.site(request.param)


@pytest.fixture(params=["flask", "django"])
def client(request):
    with requests.Session() as session:
        session.headers["X-App"] = request.param
        session.trust_env = False
        yield session


def test_urls(client, site):
    known = client.get(f"{site.url}/", params={"q": "a b&é", "empty": ""}).json()
    assert known["url"].startswith(f"{site.url}/?q=")
    assert known["root"] == site.way.prefix
    assert known["path"] == "/"
    assert known["args"] == {"q": "a b&é", "empty": ""}
    assert known["home"] == f"{site.way.prefix}/"
    assert known["absolute"] == f"{site.url}/greet/a/b%20%C3%A9"
    assert client.get(known["absolute"]).text == "hello a/b é"


def test_form(client, site):
    sent = {"name": ["Zoë", "Ünal"], "text": ["a&b=c+d %"]}
    assert client.post(f"{site.url}/form", data=sent).json() == sent


def test_form_of_unknown_length(client, site):
    """Django trusts CONTENT_LENGTH alone; Flask asks wsgi.input_terminated."""
    answer = client.post(
        f"{site.url}/form",
        data=iter([b"name=Zo%C3%AB&", b"te", b"xt=1"]),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    if site.way.server == "apache" and site.way.protocol in ("scgi", "uwsgi"):
        assert answer.status_code == 411
    else:
        assert answer.json() == {"name": ["Zoë"], "text": ["1"]}


def test_upload(client, site):
    data = bytes(range(256)) * 12_000
    files = {"file": ("naïve.bin", data, "application/octet-stream")}
    got = client.post(f"{site.url}/upload", data={"note": "ça va"}, files=files).json()
    sha = hashlib.sha256(data).hexdigest()
    assert got == {"name": "naïve.bin", "size": len(data), "sha256": sha, "note": "ça va"}


def test_session_and_redirect(client, site):
    assert client.get(f"{site.url}/me").text == "nobody"
    answer = client.post(f"{site.url}/login", data={"user": "Zoë"})
    assert answer.url == f"{site.url}/me"
    assert [step.status_code for step in answer.history] == [303]
    assert answer.text == client.get(f"{site.url}/me").text == "Zoë"
    assert client.get(f"{site.url}/logout").text == "nobody"


def test_missing_page(client, site):
    assert client.get(f"{site.url}/missing").status_code == 404


def test_stream(client, site):
    text = client.get(f"{site.url}/stream").text
    assert text == "".join(f"line {number}\n" for number in range(100))
