"""Building a web application: routes in, a guarded ASGI application out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from dwarf_cxr.web.links import ENTRY, Links, Role, Visitor
from dwarf_cxr.web.security import LOCAL_HOSTS, Guard, Limits, refusal_page, set_session

LOG = logging.getLogger(__name__)

WORDS = {
    400: "The request is not valid.",
    401: "Open your private link to come in.",
    403: "This page is not yours to see.",
    404: "There is no such page.",
    405: "This cannot be done with that page.",
    409: "This does not fit what was saved meanwhile. Reload the page.",
    422: "Something in the request is missing or wrong.",
}

INVALID_LINK = "This link is not valid here, or was withdrawn. Ask for a new one."


def build_application(
    routes: Sequence[APIRouter],
    links: Links,
    *,
    hosts: Sequence[str] = LOCAL_HOSTS,
    limits: Limits | None = None,
) -> Guard:
    """An application of `routes`, of the private links and of the files in static/.

    Args:
        hosts: names that it may be asked under, without port.
    """
    pages = Pages(links)
    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    application.mount("/static", StaticFiles(packages=[("dwarf_cxr.web", "static")]), "static")

    @application.get(f"{ENTRY}{{token}}")
    def enter(token: str, request: Request) -> Response:
        """Opens a session, but asks first where it would end another visitor's."""
        current: Visitor | None = request.state.visitor
        visitor = links.visitor_of_link(token)
        if current is None or visitor in (None, current):
            return change_visitor(token, request)
        return pages.render(request, "switch.html.j2", {"other": visitor})

    @application.post(f"{ENTRY}{{token}}")
    def change_visitor(token: str, request: Request) -> Response:
        visitor = links.visitor_of_link(token)
        session = None if visitor is None else links.session(visitor)
        if session is None:
            raise HTTPException(404, INVALID_LINK)
        response = RedirectResponse("/", status_code=303)
        set_session(response, links, session, secure=request.url.scheme == "https")
        return response

    for router in routes:
        application.include_router(router)
    application.add_exception_handler(StarletteHTTPException, _refuse)
    application.add_exception_handler(RequestValidationError, _refuse_wrong)
    application.add_exception_handler(Exception, _fail)
    return Guard(application, links, hosts, Limits() if limits is None else limits)


def visitor_of(request: Request, role: Role) -> Visitor:
    """The visitor, who must have the role.

    Raises:
        HTTPException: 401 without a session, 403 with one of another role.
    """
    visitor: Visitor | None = request.state.visitor
    if visitor is None:
        raise HTTPException(401)
    if visitor.role != role:
        raise HTTPException(403)
    return visitor


class Pages:
    """Renders the templates of the package; what they do not know is an error, not a gap."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._templates = Environment(
            loader=PackageLoader("dwarf_cxr.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(
        self, request: Request, template: str, content: Mapping[str, Any], status: int = 200
    ) -> HTMLResponse:
        """A page or a part of one; templates also know `visitor` and `form_token`."""
        visitor: Visitor | None = request.state.visitor
        token = "" if visitor is None else self._links.form_token(visitor)
        text = self._templates.get_template(template).render(
            {**content, "visitor": visitor, "form_token": token}
        )
        return HTMLResponse(text, status_code=status)


async def _refuse(request: Request, fault: Exception) -> Response:
    if not isinstance(fault, StarletteHTTPException):
        return await _fail(request, fault)
    # a route's own sentence, rather than the name of the status
    own = fault.detail if fault.detail.endswith(".") else None
    return refusal_page(
        fault.status_code, own or WORDS.get(fault.status_code, "This cannot be done.")
    )


async def _refuse_wrong(request: Request, fault: Exception) -> Response:
    return refusal_page(422, WORDS[422])


async def _fail(request: Request, fault: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=fault)
    return refusal_page(500, "Something failed here. What was saved before is safe; try again.")
