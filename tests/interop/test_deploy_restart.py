"""Connections to the gateway last, and survive its restart, behind every file of deploy/."""

import contextlib
import http.client
import signal
import threading
import time
from pathlib import Path

import pytest
from front_ends import FILES, HOST

#: Gateways of their own: nobody else's are stopped.
RESTARTED, RELOADED = "--keepalive=60", "--keepalive=61"
KEPT = {"nginx": 62, "apache": 63}


def connections(address):
    """What tells the open connections of a server apart: the peer's port, or the inode."""
    if isinstance(address, str):
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {row[6] for row in rows if row[-1] == address and row[5] == "03"}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    local = f"0100007F:{address[1]:04X}"
    return {row[2] for row in rows if row[1] == local and row[3] == "01"}


@pytest.mark.parametrize(
    "way", [way for way in FILES if way.protocol in ("http", "fastcgi")], ids=str
)
def test_connections_to_the_gateway_are_kept(servers, way):
    option = f"--keepalive={KEPT[way.server]}"
    site = servers.site(way, option)
    backend = servers.gateway(way.mount, option).addresses[way.protocol, way.transport]
    site.ask()
    before = connections(backend)
    for number in range(10):
        assert site.ask(f"/{number}").status == 200
    assert before
    assert before == connections(backend)


def post(client, site):
    """A request that no front end may send twice; the process that answered, or what went wrong."""
    client.request("POST", f"{site.way.prefix}/", b"x" * 100, {"Host": HOST})
    response = client.getresponse()
    response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"{response.status} from {site.way}")
    return int(response.getheader("X-Probe"))


def test_restart(servers):
    """While the gateway is down there is a clear error, and none as soon as it is up again."""
    sites = [servers.site(way, RESTARTED) for way in FILES]
    gateways = [servers.gateway(mount, RESTARTED) for mount in ("root", "prefix")]
    assert {site.ask(method="POST", body=b"x").status for site in sites} == {200}
    for gateway in gateways:
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0
    assert {site.ask(method="POST", body=b"x").status for site in sites} <= {502, 503}
    for gateway in gateways:
        servers.start_gateway(gateway)
    assert {site.ask(method="POST", body=b"x").status for site in sites} == {200}


@pytest.mark.parametrize("protocol", ["http", "fastcgi", "scgi", "uwsgi"])
def test_reload_loses_no_request(servers, protocol):
    """Clients that never pause see neither an error nor a closed connection."""
    gateway = servers.gateway("root", RELOADED)
    sites = [
        servers.site(way, RELOADED)
        for way in FILES
        if way.mount == "root" and way.protocol == protocol
    ]
    stop, failures = threading.Event(), []
    seen = {site.way: set() for site in sites}

    def keep_asking(site):
        try:
            with contextlib.closing(http.client.HTTPConnection(*site.address)) as client:
                while not stop.is_set():
                    seen[site.way].add(post(client, site))
        except (http.client.HTTPException, OSError) as error:
            failures.append((str(site.way), repr(error)))

    threads = [threading.Thread(target=keep_asking, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            wait_until(lambda: failures or all(seen.values()))
            gateway.process.send_signal(signal.SIGHUP)
            old = set().union(*seen.values())
            wait_until(lambda old=old: failures or all(pids - old for pids in seen.values()))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not failures


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 seconds"
        time.sleep(0.01)
