"""What every request passes and every answer carries, whatever the route.

One ASGI layer around the whole application, so that error pages have it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dwarf_cxr.web.links import SESSION_SECONDS, Links, Visitor

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD")
TOKEN_HEADER = "x-csrf-token"
TOKEN_FIELD = "csrf"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
STATIC = "/static/"


@dataclass(frozen=True)
class Limits:
    """How much a request may bring."""

    body: int = 64 * 1024
    """Bytes of a body, whether or not it says its length."""
    field: int = 16 * 1024
    """Characters of one field of a form."""
    fields: int = 50


class RefusedError(Exception):
    """A request that no route sees."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@dataclass(frozen=True)
class Guard:
    """Lets `application` see requests of known visitors to the right host, of bounded size.

    `scope["state"]["visitor"]` is the `Visitor` whose session it is, or None. Changes need a form
    token, in the header `X-CSRF-Token` or in the form's field `csrf`.
    """

    application: ASGIApp
    links: Links
    hosts: Sequence[str] = LOCAL_HOSTS
    limits: Limits = Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        visitor, renew = self._visitor(Headers(scope=scope))
        scope.setdefault("state", {})["visitor"] = visitor
        cookie = self.links.session(visitor) if visitor is not None and renew else None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith(STATIC):
                    headers["Cache-Control"] = "no-cache"
                else:
                    headers["Cache-Control"] = "no-store"
                for name in ("server", "x-powered-by"):
                    if name in headers:
                        del headers[name]
                if cookie is not None and "set-cookie" not in headers:
                    carrier = Response()
                    set_session(carrier, self.links, cookie, secure=scope["scheme"] == "https")
                    headers.append("set-cookie", carrier.headers["set-cookie"])
            await send(message)

        try:
            self._check_host(Headers(scope=scope))
            body = await self._body(scope, receive)
            self._check_change(scope, body, visitor)
        except RefusedError as refusal:
            page = refusal_page(refusal.status, refusal.words)
            await page(scope, receive, send_guarded)
            return
        await self.application(scope, _replaying(body, receive), send_guarded)

    def _visitor(self, headers: Headers) -> tuple[Visitor | None, bool]:
        """Whose session it is, and whether half of it has passed."""
        # as browsers do: http.cookies gives up at the first cookie of another program on this host
        # that is no valid one, and all that come after it are lost
        cookie = cookie_parser(headers.get("cookie", "")).get(self.links.cookie)
        found = None if cookie is None else self.links.visitor_of_session(cookie)
        return (None, False) if found is None else (found[0], found[1] < SESSION_SECONDS / 2)

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.casefold() not in {one.casefold() for one in self.hosts}:
            raise RefusedError(400, "This address is not one that the pages are served under.")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, read no further than the limit."""
        if scope["method"] in SAFE_METHODS:
            return b""
        headers = Headers(scope=scope)
        too_much = RefusedError(
            413, "That is more than this page accepts; nothing of it was saved."
        )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise RefusedError(400, "The length of the request is not a number.")
        if int(length) > self.limits.body:
            raise too_much
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "The request broke off; nothing of it was saved.")
            body += message.get("body", b"")
            if len(body) > self.limits.body:
                raise too_much
            if not message.get("more_body", False):
                return bytes(body)

    def _check_change(self, scope: Scope, body: bytes, visitor: Visitor | None) -> None:
        if scope["method"] in SAFE_METHODS:
            return
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        fields: list[tuple[str, str]] = []
        if kind == FORM:
            fields = self._fields(body)
        elif body and kind != JSON:
            raise RefusedError(415, "Only forms and JSON are accepted.")
        token = headers.get(TOKEN_HEADER) or dict(fields).get(TOKEN_FIELD)
        if not token:
            raise RefusedError(
                403, "The request does not come from a page of this site. Reload it."
            )
        if visitor is None:
            raise RefusedError(401, "Your session has ended. Open your private link again.")
        if not self.links.is_form_token(token, visitor):
            raise RefusedError(
                403, "Another link was opened in this browser since. Open your own again."
            )

    def _fields(self, body: bytes) -> list[tuple[str, str]]:
        too_much = RefusedError(
            413, "A field of the form is too long; nothing was saved. Shorten it."
        )
        try:
            fields = parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=self.limits.fields
            )
        except UnicodeDecodeError:
            raise RefusedError(400, "The form is not written in UTF-8.") from None
        except ValueError:
            raise too_much from None
        if any(len(name) + len(value) > self.limits.field for name, value in fields):
            raise too_much
        return fields


def set_session(response: Response, links: Links, cookie: str, *, secure: bool) -> None:
    """Put a session's cookie on a response.

    Lax: the cookie must come along when a link in a message leads here.
    """
    response.set_cookie(
        links.cookie,
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=secure,
    )


def refusal_page(status: int, words: str) -> HTMLResponse:
    """A page of one sentence, without anything of the request in it."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{status}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/static/style.css"></head>'
        f'<body><main class="message"><h1>{escape(words)}</h1><p>Status {status}</p></main></body>'
        "</html>",
        status_code=status,
    )


def _replaying(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body that was read, then whatever comes."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
