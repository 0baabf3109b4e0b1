"""Serving an application to browsers, on this machine only unless told otherwise."""

import socket
from collections.abc import Callable, Sequence
from shlex import join

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.web.links import OWNER, Links, Visitor
from dwarf_cxr.web.security import LOCAL_HOSTS, Guard

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")


def allowed_hosts(host: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that pages bound to `host` may be asked under.

    Raises:
        ConfigError: bound to every address of the machine without a name to be asked under.
    """
    if host in EVERYWHERE and not names:
        raise ConfigError(
            f"--host {host}: every address of this machine; say under which name readers will "
            "open the pages, with --allow-host NAME"
        )
    own = () if host in (*EVERYWHERE, *LOOPBACK) else (f"[{host}]" if ":" in host else host,)
    return (*names, *own, *LOCAL_HOSTS)


def address(host: str, port: int, names: Sequence[str] = ()) -> str:
    """Where a browser finds the pages."""
    shown = names[0] if names else ("127.0.0.1" if host in LOOPBACK else host)
    return f"http://{f'[{shown}]' if ':' in shown and shown[0] != '[' else shown}:{port}"


def link(base: str, links: Links, visitor: Visitor) -> str:
    """A visitor's private link, or that they have none."""
    path = links.path(visitor)
    return "link withdrawn; invite again for a new one" if path is None else base + path


def bound_to(serve_command: Sequence[str], host: str, port: int, names: Sequence[str]) -> str:
    """Where printed links lead, and the command that serves the pages there."""
    options = [
        *(["--host", host] if host != DEFAULT_HOST else []),
        *(["--port", str(port)] if port != DEFAULT_PORT else []),
        *(word for name in names for word in ("--allow-host", name)),
    ]
    return (
        f"these links lead to {address(host, port, names)} and work only while the pages are "
        f"served there: {join([*serve_command, *options])}"
    )


def serve(
    application: Guard,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    names: Sequence[str] = (),
    first: Sequence[str] = (),
    say: Callable[[str], None],
) -> None:
    """Serve until interrupted; says what comes `first`, and the owner's private link.

    Requests are not logged: their addresses hold private links.

    Raises:
        ConfigError: the address cannot be bound, as when another server is there.
    """
    import uvicorn

    bound = _bound(host, port)
    for line in first:
        say(line)
    if host not in LOOPBACK:
        say(
            f"warning: bound to {host}, so others on the network can reach the pages, unencrypted; "
            "put a server with TLS before them, or use an SSH tunnel to 127.0.0.1"
        )
    say(f"the owner's link: {link(address(host, port, names), application.links, OWNER)}")
    say("stop with Ctrl-C")
    config = uvicorn.Config(
        application,
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_keep_alive=30,
        limit_concurrency=200,
        h11_max_incomplete_event_size=32 * 1024,
    )
    with bound:
        uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, so that a link is said only when somebody will answer there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else every answer of a
    # connection that is kept waits 40 ms for the browser to confirm its head
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as fault:
        bound.close()
        raise ConfigError(
            f"{host}, port {port}: cannot be bound ({fault.strerror or fault}); is it served "
            "already? choose another --port"
        ) from None
    return bound
