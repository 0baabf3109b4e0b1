import http.client
import socket
import threading
import time

import pytest

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.web import serving
from dwarf_cxr.web.application import build_application
from dwarf_cxr.web.links import Links, Visitor


def test_hosts_that_pages_may_be_asked_under():
    local = ("localhost", "127.0.0.1", "[::1]")
    assert serving.allowed_hosts("127.0.0.1", []) == local
    assert serving.allowed_hosts("10.0.0.7", []) == ("10.0.0.7", *local)
    assert serving.allowed_hosts("fd00::7", []) == ("[fd00::7]", *local)
    assert serving.allowed_hosts("0.0.0.0", ["ward.example"]) == ("ward.example", *local)
    with pytest.raises(ConfigError, match="--allow-host"):
        serving.allowed_hosts("0.0.0.0", [])


def test_address():
    assert serving.address("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert serving.address("fd00::7", 80) == "http://[fd00::7]:80"
    assert serving.address("0.0.0.0", 81, ["ward.example"]) == "http://ward.example:81"


def test_where_links_lead_and_how_to_serve_there():
    said = serving.bound_to(["dwarf", "study", "serve", "my study"], "127.0.0.1", 8000, [])
    assert said.startswith("these links lead to http://127.0.0.1:8000 and work only while")
    assert said.endswith(": dwarf study serve 'my study'")
    said = serving.bound_to(
        ["dwarf", "review", "serve", "DATA"], "0.0.0.0", 81, ["ward.example", "w"]
    )
    assert "http://ward.example:81 and" in said
    assert said.endswith("--host 0.0.0.0 --port 81 --allow-host ward.example --allow-host w")


def test_over_a_socket(tmp_path, monkeypatch):
    import uvicorn

    servers = []
    original = uvicorn.Server.run

    def run(self, sockets=None):
        servers.append(self)
        self.install_signal_handlers = lambda: None
        self.capture_signals = __import__("contextlib").nullcontext
        original(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    links = Links.of(tmp_path)
    said = []
    thread = threading.Thread(
        target=serving.serve,
        args=(build_application([], links),),
        kwargs={"port": port, "say": said.append},
    )
    thread.start()
    try:
        for _ in range(200):
            if servers and servers[0].started:
                break
            time.sleep(0.05)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/static/style.css")
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        assert response.getheader("server") is None
        connection.request("GET", links.path(Visitor("reader", "ann")))
        assert connection.getresponse().status == 303
        connection.close()
    finally:
        servers[0].should_exit = True
        thread.join()
    assert f"http://127.0.0.1:{port}/enter/" in said[0]
    assert not any("warning" in line for line in said)


def test_warning_elsewhere(tmp_path, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    said = []
    application = build_application([], Links.of(tmp_path))
    serving.serve(application, host="0.0.0.0", port=0, names=["w"], say=said.append)
    assert "warning: bound to 0.0.0.0" in said[0]
    assert "http://w:0/enter/" in said[1]


def test_address_that_is_taken(tmp_path):
    said = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: cannot be bound"):
            serving.serve(build_application([], Links.of(tmp_path)), port=port, say=said.append)
    assert said == []


def test_answers_are_sent_at_once(tmp_path):
    """Only of a socket whose protocol is named does asyncio switch off Nagle's delay of 40 ms."""
    import socket

    from dwarf_cxr.web.serving import _bound

    for host in ("127.0.0.1", "localhost"):
        with _bound(host, 0) as bound:
            assert bound.proto == socket.IPPROTO_TCP
