import base64
import stat

import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.web.links import OWNER, SESSION_SECONDS, Links, Visitor

ANN = Visitor("reader", "Ann: née Ö")


@pytest.fixture
def links(tmp_path):
    return Links.of(tmp_path)


def token(links, visitor):
    return links.path(visitor).removeprefix("/enter/")


def test_secret_is_kept_and_private(links, tmp_path):
    assert Links.of(tmp_path) == links
    assert Links.of(tmp_path / "other") != links
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(DataError, match="chmod 600"):
        Links.of(tmp_path)


def test_damaged_secret(links, tmp_path):
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes instead of 32"):
        Links.of(tmp_path)


@pytest.mark.parametrize("visitor", [ANN, OWNER])
def test_links_come_back(links, visitor):
    assert links.visitor_of_link(token(links, visitor)) == visitor


def test_no_other_link_is_accepted(links, tmp_path):
    good = token(links, ANN)
    content, signature = good.split(".")
    owner = base64.urlsafe_b64encode(b"owner:owner").rstrip(b"=").decode()
    wrong = [
        "",
        ".",
        content,
        f"{content}.",
        f"{owner}.{signature}",
        good[:-2],
        f"{good}é",
        "a.b.c",
    ]
    wrong += [token(Links.of(tmp_path / "other"), ANN), links.session(ANN), good.swapcase()]
    assert [links.visitor_of_link(one) for one in wrong] == [None] * len(wrong)


def test_sessions_end(links):
    cookie = links.session(ANN, now=1000.0)
    assert links.visitor_of_session(cookie, now=1010.0) == (ANN, SESSION_SECONDS - 10)
    assert links.visitor_of_session(cookie, now=1000.0 + SESSION_SECONDS) is None
    assert links.visitor_of_session(token(links, ANN)) is None


def test_form_tokens_are_of_one_visitor(links):
    assert links.is_form_token(links.form_token(ANN), ANN)
    assert not links.is_form_token(links.form_token(ANN), OWNER)
    assert not links.is_form_token("é", ANN)
