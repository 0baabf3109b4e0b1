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


BEN = Visitor("reader", "ben")


def test_withdrawn_links_and_sessions_end_and_others_stay(links, tmp_path):
    old = {who: (token(links, who), links.session(who)) for who in (ANN, BEN, OWNER)}
    # another process withdraws
    Links.of(tmp_path).withdraw(ANN)
    assert links.visitor_of_link(old[ANN][0]) is None
    assert links.visitor_of_session(old[ANN][1]) is None
    assert (links.path(ANN), links.session(ANN)) == (None, None)
    for who in (BEN, OWNER):
        assert links.visitor_of_link(old[who][0]) == who
        assert links.visitor_of_session(old[who][1])[0] == who
        assert (token(links, who), links.session(who)) == old[who]


def test_who_is_admitted_again_has_a_new_link_alone(links, tmp_path):
    seen = []
    for _ in range(3):
        seen.append((token(links, ANN), links.session(ANN)))
        form = links.form_token(ANN)
        links.withdraw(ANN)
        assert links.visitor_of_link(seen[-1][0]) is None
        Links.of(tmp_path).admit(ANN)
        # a page that was left open can send what it holds once the new link was opened
        assert links.form_token(ANN) == form
    assert len({link for link, _ in seen}) == 3
    for link, session in seen:
        assert links.visitor_of_link(link) is None
        assert links.visitor_of_session(session) is None
    now = token(links, ANN)
    assert links.visitor_of_link(now) == ANN
    assert links.visitor_of_session(links.session(ANN))[0] == ANN
    # admitting again is not a change
    links.admit(ANN)
    assert token(links, ANN) == now


def test_admitting_who_was_never_withdrawn_changes_nothing(links, tmp_path):
    before = token(links, ANN)
    links.admit(ANN)
    assert token(links, ANN) == before
    assert not (tmp_path / "links.json").exists()


def test_damaged_marks_let_nobody_in(links, tmp_path):
    before = token(links, ANN)
    (tmp_path / "links.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        links.visitor_of_link(before)


def test_form_tokens_are_of_one_visitor(links):
    assert links.is_form_token(links.form_token(ANN), ANN)
    assert not links.is_form_token(links.form_token(ANN), OWNER)
    assert not links.is_form_token("é", ANN)
