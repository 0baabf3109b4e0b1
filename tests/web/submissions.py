"""Readers who go on sending while the server is killed under them."""

import http.client
import random
import threading
import time
from collections.abc import Generator, Sequence

from dwarf_cxr.web.links import Links, Visitor
from tests.web.served import Server

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
Talk = Generator[tuple[str, str], bytes, None]
"""Yields an address and a body; is sent the content of the answer that confirmed it."""


class Client(threading.Thread):
    """A reader in talk with the server; what is not confirmed is sent again as it was."""

    def __init__(self, server: Server, name: str, kind: str, talk: Talk) -> None:
        super().__init__()
        visitor, links = Visitor("reader", name), Links.of(server.folder)
        self.server, self.name_, self.talk = server, name, talk
        self.headers = {
            "Cookie": f"{links.cookie}={links.session(visitor)}",
            "X-CSRF-Token": links.form_token(visitor),
            "Content-Type": kind,
        }
        self.random = random.Random(name)
        self.connection: http.client.HTTPConnection | None = None
        self.retries = 0
        self.fault: str | None = None

    def run(self) -> None:
        try:
            path, body = next(self.talk)
            while True:
                answer = self.confirmed(path, body)
                if self.random.random() < 0.1:
                    self.send_once(path, body)  # impatient: whether or not anybody is there
                path, body = self.talk.send(answer)
        except StopIteration:
            pass
        except Exception as fault:  # the test shows it
            self.fault = repr(fault)

    def confirmed(self, path: str, body: str) -> bytes:
        """The answer of a server that says it has the request; asked until there is one."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            status, content = self.send_once(path, body)
            if status == 200:
                return content
            if status is not None and status < 500:
                raise RuntimeError(f"status {status}: {content[:200]!r}")
            self.retries += 1
            time.sleep(0 if status is not None else 0.1)
        raise RuntimeError("no answer for two minutes")

    def send_once(self, path: str, body: str) -> tuple[int | None, bytes]:
        """Status and content of the answer; no status without one."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.server.port, timeout=20
                )
            self.connection.request("POST", path, body, self.headers)
            response = self.connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            return None, b""


def send_under_kills(server: Server, clients: Sequence[Client], kills: int) -> None:
    """Let all clients talk to the end, the server killed and started again `kills` times."""
    chance, killed = random.Random(1), 0
    server.start()
    try:
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(chance.uniform(0.05, 0.6))
            if killed < kills:
                server.kill()
                killed += 1
                server.start()
        for client in clients:
            client.join()
    finally:
        server.stop()
    assert [client.fault for client in clients] == [None] * len(clients)
    assert killed == kills
    assert sum(client.retries for client in clients) > 0
