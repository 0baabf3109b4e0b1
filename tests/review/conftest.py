"""The review's pages in a process of their own."""

import pytest

from tests.web.served import Server


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(data, *options):
        folder = tmp_path / "review"
        words = ("review", "serve", str(data), "--review", str(folder), *options)
        servers.append(Server(folder, *words))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
