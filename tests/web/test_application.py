"""What holds for every page: headers, hosts, sizes, form tokens, errors."""

import asyncio
import re

import pytest
from fastapi import APIRouter, Request
from starlette.testclient import TestClient

from dwarf_cxr.web.application import build_application, visitor_of
from dwarf_cxr.web.links import OWNER, Links, Visitor
from dwarf_cxr.web.security import Limits

ANN = Visitor("reader", "ann")


@pytest.fixture
def saved():
    return []


@pytest.fixture
def links(tmp_path):
    return Links.of(tmp_path)


@pytest.fixture
def application(links, saved):
    router = APIRouter()

    @router.get("/")
    def home(request: Request):
        return {"name": visitor_of(request, "reader").name}

    @router.get("/owner")
    def owner(request: Request):
        return {"name": visitor_of(request, "owner").name}

    @router.get("/broken")
    def broken():
        raise RuntimeError("the secret reason")

    @router.post("/save")
    async def save(request: Request):
        saved.append((await request.form())["value"])
        return {}

    return build_application([router], links, limits=Limits(body=2000, field=500, fields=5))


@pytest.fixture
def client(application):
    return TestClient(application, "http://localhost", raise_server_exceptions=False)


@pytest.fixture
def ann(client, links):
    client.get(links.path(ANN))
    client.headers["X-CSRF-Token"] = links.form_token(ANN)
    return client


def test_link_opens_a_session_and_leaves_the_address(client, links):
    response = client.get(links.path(ANN), follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/").json() == {"name": "ann"}


def test_without_or_with_a_wrong_link(client, links):
    assert client.get("/").status_code == 401
    assert client.get(links.path(ANN)[:-3] + "abc").status_code == 404
    client.cookies.set(links.cookie, links.session(ANN, now=0.0))
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    "other", ['prefs={"dark":true}', "a b=c", "=", "x", "a=b,c", 'q="open', "é=ü", "$Version=1"]
)
def test_other_programs_cookies_do_not_end_the_session(client, links, other):
    cookie = f"{links.cookie}={links.session(ANN)}"
    for header in (f"{other}; {cookie}", f"{cookie}; {other}"):
        response = client.get("/", headers={"Cookie": header.encode("latin-1")})
        assert response.json() == {"name": "ann"}, header


def test_withdrawn_in_a_running_application(ann, links, tmp_path, saved):
    ben = TestClient(ann.app, "http://localhost")
    ben.get(links.path(Visitor("reader", "ben")))
    old = links.path(ANN)
    Links.of(tmp_path).withdraw(ANN)
    assert ann.get("/").status_code == 401
    assert ann.post("/save", data={"value": "1"}).status_code == 401
    response = ann.get(old)
    assert response.status_code == 404
    assert "was withdrawn. Ask for a new one" in response.text
    assert ben.get("/").json() == {"name": "ben"}
    Links.of(tmp_path).admit(ANN)
    assert ann.get("/").status_code == 401
    assert ann.get(old).status_code == 404
    assert ann.get(links.path(ANN)).is_success
    assert ann.post("/save", data={"value": "2"}).is_success
    assert saved == ["2"]


def test_roles_are_apart(client, links):
    client.get(links.path(ANN))
    assert client.get("/owner").status_code == 403
    client.cookies.clear()
    client.get(links.path(OWNER))
    assert client.get("/owner").json() == {"name": "owner"}
    assert client.get("/").status_code == 403


def test_another_s_link_asks_before_it_takes_the_place(ann, links, saved):
    """Or all that is answered from then on, in the other tabs too, would be another's."""
    other = links.path(OWNER)
    page = ann.get(other, follow_redirects=False)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert "open for ann. The link is for owner." in page.text
    assert ann.get("/").json() == {"name": "ann"}
    assert ann.get(links.path(ANN), follow_redirects=False).status_code == 303
    assert 'method="post"' in page.text
    del ann.headers["X-CSRF-Token"]
    assert ann.post(other).status_code == 403
    assert ann.get("/").json() == {"name": "ann"}
    token = re.search(r'name="csrf" value="([^"]+)"', page.text).group(1)
    response = ann.post(other, data={"csrf": token}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert ann.get("/owner").json() == {"name": "owner"}
    # a link that is none says so, and ends nothing
    assert ann.get(other[:-3] + "abc").status_code == 404
    assert ann.get("/owner").is_success


def test_session_is_renewed_when_half_is_over(client, links, monkeypatch):
    client.get(links.path(ANN))
    assert "set-cookie" not in client.get("/").headers
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7 * 3600)
    assert links.cookie in client.get("/").headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/none", "/broken", "/static/style.css", "/save", "/docs"])
def test_every_answer_is_guarded(client, path):
    response = client.get(path)
    headers = response.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers
    static = path.startswith("/static")
    assert headers["cache-control"] == ("no-cache" if static else "no-store")


def test_errors_show_nothing_of_the_program(client):
    response = client.get("/broken")
    assert response.status_code == 500
    assert "secret reason" not in response.text
    assert "Traceback" not in response.text
    assert "<h1>" in response.text
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_name_of_the_host(application):
    for host in ("localhost", "localhost:8000", "127.0.0.1:9", "[::1]:9", "LOCALHOST"):
        assert TestClient(application).get("/static/style.css", headers={"host": host}).is_success
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io:8000"):
        response = TestClient(application).get("/static/style.css", headers={"host": host})
        assert response.status_code == 400


def test_change_needs_the_token_of_its_page(ann, links, saved):
    del ann.headers["X-CSRF-Token"]
    assert ann.post("/save", data={"value": "1"}).status_code == 403
    wrong = {"X-CSRF-Token": links.form_token(OWNER)}
    assert ann.post("/save", data={"value": "2"}, headers=wrong).status_code == 403
    assert ann.post("/save", data={"value": "3", "csrf": links.form_token(ANN)}).is_success
    right = {"X-CSRF-Token": links.form_token(ANN)}
    assert ann.post("/save", data={"value": "4"}, headers=right).is_success
    assert saved == ["3", "4"]


def test_page_left_open_works_again_after_its_link_was_opened(ann, links, saved):
    ann.cookies.clear()
    assert ann.post("/save", data={"value": "1"}).status_code == 401
    ann.get(links.path(ANN))
    assert ann.post("/save", data={"value": "1"}).is_success
    assert saved == ["1"]


def test_too_much(ann, saved):
    assert ann.post("/save", data={"value": "x" * 501}).status_code == 413
    assert ann.post("/save", data={"value": "x" * 3000}).status_code == 413
    assert ann.post("/save", data={str(number): "x" for number in range(6)}).status_code == 413
    assert saved == []


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json"])
def test_too_much_without_a_length_is_read_no_further_than_the_limit(
    application, links, saved, kind
):
    sent, pulled = [], []

    async def receive():
        pulled.append(1)
        assert len(pulled) < 100
        return {"type": "http.request", "body": b"x" * 600, "more_body": True}

    async def send(message):
        sent.append(message)

    headers = {
        "host": "localhost",
        "content-type": kind,
        "cookie": f"{links.cookie}={links.session(ANN)}",
        "x-csrf-token": links.form_token(ANN),
    }
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/save",
        "raw_path": b"/save",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(asyncio.wait_for(application(scope, receive, send), 10))
    assert sent[0]["status"] == 413
    # 2,000 bytes may come; the fourth part is too much
    assert len(pulled) == 4
    assert saved == []


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain", "image/png"])
def test_other_contents_are_refused(ann, saved, kind):
    headers = {"content-type": kind}
    assert ann.post("/save", content=b"value=1", headers=headers).status_code == 415
    assert saved == []


def test_wrong_lengths_and_bytes(ann):
    form = {"content-type": "application/x-www-form-urlencoded"}
    response = ann.post("/save", content=b"value=1", headers={**form, "content-length": "-1"})
    assert response.status_code == 400
    assert ann.post("/save", content=b"value=\xff", headers=form).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/static/../links.py",
        "/static/%2e%2e/links.py",
        "/static/..%2flinks.py",
        "/static/%252e%252e/links.py",
        "/static//etc/passwd",
        "/static/..%5c..%5clinks.py",
        "/enter/..%2f..%2fsecret",
    ],
)
def test_paths_lead_nowhere_else(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert "import" not in response.text
