"""docs/how-to/x-sendfile.md: each front end that can sends the file that the application names.

What the page says to add is added to the file of deploy/, with the folder of this test.
"""

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import front_ends
import other_front_ends
import pytest
import starting_front_ends
from front_ends import APACHE_DEFAULT_MODULES, BOOTS, FILES, Site, web_group
from matrix import LARGE
from other_front_ends import OTHERS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "x-sendfile.md"
BLOCKS = dict(re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", PAGE.read_text()))

#: Before which line of its file a server has the addition.
PLACES = {
    "nginx": r"(?m)^    location / ",
    "apache": r"(?m)^</VirtualHost>",
    "lighttpd": r'(?m)^ *"check-local"',
    "caddy": r"(?m)^\t\tflush_interval",
}

WAYS = [
    way
    for way in FILES + OTHERS
    if way.mount == "root" and (way.server in PLACES or way.server.startswith("mod_"))
]


@pytest.fixture(scope="module")
def files(servers):
    folder = servers.new_folder("files")
    (folder / "large file").write_bytes(LARGE)
    (folder.parent / "outside").write_bytes(b"outside")
    if web_group():
        shutil.chown(folder, web_group(), web_group())
    return folder


@contextmanager
def added(way, folder, monkeypatch):
    """The files of deploy/ read with what the page says to add."""
    server = "apache" if way.server.startswith("mod_") else way.server
    block = BLOCKS[server].replace("/srv/files", str(folder))
    as_it_is = front_ends.replaced

    def replaced(file, replacements):
        text = as_it_is(file, replacements)
        if file.parent.name != server or file.suffix == ".fcgi":
            return text
        if way.protocol == "cgi" and server == "lighttpd":
            page = PAGE.read_text().replace("/srv/files", str(folder))
            lines = re.findall(r"`(cgi\.x-sendfile.*?)`", page)
            return text.replace("    cgi.assign", "\n".join([*lines, "    cgi.assign"]))
        changed, count = re.subn(PLACES[server], lambda m: block + m[0], text)
        assert count == 1
        return changed

    with monkeypatch.context() as patch:
        for module in (front_ends, other_front_ends, starting_front_ends):
            patch.setattr(module, "replaced", replaced)
        if server == "apache":
            modules = [*APACHE_DEFAULT_MODULES, "xsendfile"]
            for module in (front_ends, starting_front_ends):
                patch.setattr(module, "APACHE_DEFAULT_MODULES", modules)
        yield


@pytest.fixture(params=WAYS, ids=str)
def site(request, servers, files, monkeypatch):
    way = request.param
    backend = servers.gateway("root").addresses.get((way.protocol, way.transport))
    with added(way, files, monkeypatch):
        return Site(way, BOOTS[way.server](servers, way, backend))


def test_the_front_end_sends_it(site, files):
    field, value = "X-Sendfile", f"{files}/large file"
    if site.way.server == "nginx":
        field, value = "X-Accel-Redirect", "/files/large%20file"
    elif site.way.server == "caddy":
        field, value = "X-Accel-Redirect", "/large file"
    target = f"/?field={field}&value={quote(value)}"
    answer = site.ask(target, app="named file")
    assert (answer.status, len(answer.body)) == (200, len(LARGE))
    assert answer.body == LARGE
    assert not answer.all("X-Sendfile")
    part = site.ask(target, app="named file", headers=[("Range", "bytes=1000000-1000009")])
    assert (part.status, part.body) == (206, LARGE[1_000_000:1_000_010])
    assert answer.all("Content-Type") == ["text/x-own"]
    assert answer.all("Set-Cookie") == ["a=1"]
    if site.way.server not in ("nginx", "caddy"):
        outside = f"/?field=X-Sendfile&value={files.parent}/outside"
        assert site.ask(outside, app="named file").body != b"outside"
