"""A reload behind HAProxy with multiplexed, kept connections: every request is answered once."""

import contextlib
import http.client
import os
import signal
import threading
from collections import Counter

import pytest
from front_ends import HOST, Way
from matrix import pipe
from other_front_ends import OTHERS
from test_deploy_restart import connections, wait_until

WAYS = [
    way
    for way in OTHERS
    if (way.server, way.mount) == ("haproxy", "root") and str(way) != "haproxy-http-unix-root"
]
CLIENTS = 8
RELOADS = 2


class Client(threading.Thread):
    """Asks one thing after the other on a kept connection and counts the answers."""

    def __init__(self, site, number, stop):
        super().__init__()
        self.site, self.number, self.stop = site, number, stop
        self.answered, self.workers, self.failures = 0, set(), []

    def run(self):
        try:
            with contextlib.closing(http.client.HTTPConnection(*self.site.address)) as client:
                while not self.stop.is_set():
                    self.ask(client, f"/{self.number}/{self.answered}")
        except (http.client.HTTPException, OSError, AssertionError) as error:
            self.failures.append(repr(error))

    def ask(self, client, path):
        # A POST with a body: nothing that a front end may send a second time.
        client.request("POST", path, path.encode(), {"Host": HOST, "X-App": "environ"})
        response = client.getresponse()
        body = response.read()
        assert response.status == 200, (path, response.status)
        assert f'"{path}"'.encode() in body, (path, body)
        self.workers.add(response.getheader("X-Probe"))
        self.answered += 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_reload_loses_no_request(servers, tmp_path, way):
    log = tmp_path / "access.log"
    options = (f"--accesslog={log}", "--access-log-format=%(r)s %(s)s")
    site, gateway = servers.site(way, *options), servers.gateway(way.mount, *options)
    stop = threading.Event()
    clients = [Client(site, number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(RELOADS):
            seen = {client: set(client.workers) for client in clients}
            wait_until(lambda: any(c.failures for c in clients) or all(c.workers for c in clients))
            gateway.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda seen=seen: (
                    any(c.failures for c in clients) or all(c.workers - seen[c] for c in clients)
                )
            )
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert not [client.failures for client in clients if client.failures]
    expected = Counter(
        f"POST /{client.number}/{number} HTTP/1.1 200"
        for client in clients
        for number in range(client.answered)
    )
    wait_until(lambda: log.read_text().count("\n") >= expected.total())
    assert Counter(log.read_text().splitlines()) == expected


def test_requests_share_a_connection(servers):
    """Multiplexing is on: more requests at once than connections to the gateway."""
    way = Way("haproxy", "fastcgi", "tcp", "root")
    option = "--fastcgi-keepalive=70"
    site, gateway = servers.site(way, option), servers.gateway(way.mount, option)
    assert site.ask().status == 200
    (connection,) = connections(gateway.addresses[way.protocol, way.transport])
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(3):
            name, go_on = stack.enter_context(pipe())
            client = stack.enter_context(site.send(f"/?pieces=2&pipe={name}", app="stream"))
            received = b""
            while b"piece 0" not in received:
                received += client.recv(65536)
            started.append((client, go_on))
        assert connections(gateway.addresses[way.protocol, way.transport]) == {connection}
        # The last first: none waits for another.
        for client, go_on in reversed(started):
            os.write(go_on, b"+")
            received = b""
            while b"piece 1" not in received:
                data = client.recv(65536)
                assert data, received
                received += data
