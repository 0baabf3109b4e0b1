"""`dwarf review withdraw` while the pages are served."""

from contextlib import closing

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.pages import application
from dwarf_cxr.web.links import OWNER, Links
from tests.review.made import write_data


@pytest.fixture
def review(tmp_path):
    data = write_data(tmp_path / "data")
    return begin(tmp_path / "review", data.folder, readers=["anna", "ben"], adjudicator="carla")


def dwarf(command, review, *words):
    return CliRunner().invoke(app, ["review", command, str(review.folder), *words])


@pytest.mark.parametrize("name", ["anna", "carla"])
def test_withdrawn_at_once_and_invited_again(review, name):
    links = Links.of(review.folder)
    with closing(Ledger(review.database)) as ledger:
        guard = application(review, ledger, links)

        def client_of(link):
            client = TestClient(guard, "http://localhost")
            client.get(link.removeprefix("http://127.0.0.1:8000"))
            return client

        invited = dwarf("invite", review, name, "ben")
        assert "served there: dwarf review serve DATA\n" in invited.stderr
        old, ben = (line.split(": ", 1)[1] for line in invited.stdout.splitlines())
        gone, stays = client_of(old), client_of(ben)
        assert gone.get("/").is_success
        done = dwarf("withdraw", review, name)
        assert done.exit_code == 0
        assert f"{name}: link withdrawn" in done.output
        assert gone.get("/").status_code == 401
        assert client_of(old).get("/").status_code == 401
        assert stays.get("/").is_success
        owner = client_of(links.path(OWNER)).get("/").text
        assert f"{name}: withdrawn" in owner
        assert ben.removeprefix("http://127.0.0.1:8000") in owner
        (line,) = dwarf("invite", review, name).stdout.splitlines()
        fresh = line.split(": ", 1)[1]
        assert fresh != old
        assert gone.get("/").status_code == 401
        assert client_of(old).get("/").status_code == 401
        assert client_of(fresh).get("/").is_success


def test_strangers_cannot_be_withdrawn(review):
    result = dwarf("withdraw", review, "anna", "eve")
    assert result.exit_code == 1
    assert "'eve': not of this review; its readers: anna, ben, carla" in str(result.exception)
    # nobody was
    assert not (review.folder / "links.json").exists()
