"""Who is asking: private links, and the sessions that they open.

A link names a role and a reader and is signed with a secret of the folder, so that nothing has to
be remembered of it; it can be opened again at any time. Opening it sets a cookie and leads to an
address without the signature. Every signature has a purpose, so that none serves for another.
"""

import base64
import hashlib
import hmac
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dwarf_cxr.errors import DataError

Role = Literal["reader", "owner"]

SECRET_FILE = "secret"
SECRET_BYTES = 32
SESSION_SECONDS = 12 * 3600
"""A session without a request for so long ends; the link opens the next one."""
ENTRY = "/enter/"
"""The address of a link, before its token."""


@dataclass(frozen=True)
class Visitor:
    """Who a signed link was made for."""

    role: Role
    name: str
    """Of the reader, as the folder knows it; the owner's is "owner"."""


OWNER = Visitor("owner", "owner")


@dataclass(frozen=True)
class Links:
    """Signs and checks links, sessions and form tokens."""

    secret: bytes

    @classmethod
    def of(cls, folder: Path) -> "Links":
        """With the folder's secret, made at the first call, readable by its owner alone.

        Raises:
            DataError: the secret is damaged, or others can read it.
        """
        return cls(_secret_of(folder / SECRET_FILE))

    @property
    def cookie(self) -> str:
        """The cookie's name: cookies of a host are shared by its ports, and so by other folders."""
        return f"dwarf-{hashlib.sha256(b'cookie' + self.secret).hexdigest()[:12]}"

    def path(self, visitor: Visitor) -> str:
        """The private link of a visitor, from the host's root."""
        return ENTRY + self._signed("link", f"{visitor.role}:{visitor.name}")

    def visitor_of_link(self, token: str) -> Visitor | None:
        """Whom a link was made for; None if it was not made with this secret."""
        content = self._checked("link", token)
        return None if content is None else _visitor(content)

    def session(self, visitor: Visitor, now: float | None = None) -> str:
        """The content of a cookie that lasts `SESSION_SECONDS`."""
        ends = round((time.time() if now is None else now) + SESSION_SECONDS)
        return self._signed("session", f"{ends}:{visitor.role}:{visitor.name}")

    def visitor_of_session(
        self, cookie: str, now: float | None = None
    ) -> tuple[Visitor, float] | None:
        """Whose session it is and for how many more seconds; None if it is over or not ours."""
        content = self._checked("session", cookie)
        if content is None:
            return None
        ends, _, rest = content.partition(":")
        visitor = _visitor(rest)
        left = float(ends) - (time.time() if now is None else now)
        return None if visitor is None or left <= 0 else (visitor, left)

    def form_token(self, visitor: Visitor) -> str:
        """What a page must send with every change.

        It outlasts the session, so that a page left open can still send what it holds once its
        link was opened again; it serves nobody else, since it needs the visitor's cookie.
        """
        return _text(self._signature("form", f"{visitor.role}:{visitor.name}".encode()))

    def is_form_token(self, token: str, visitor: Visitor) -> bool:
        """Whether a change comes from a page of this visitor."""
        return hmac.compare_digest(token.encode(), self.form_token(visitor).encode())

    def _signed(self, purpose: str, content: str) -> str:
        encoded = content.encode("utf-8")
        return f"{_text(encoded)}.{_text(self._signature(purpose, encoded))}"

    def _checked(self, purpose: str, token: str) -> str | None:
        content, _, signature = token.partition(".")
        decoded, given = _bytes(content), _bytes(signature)
        if decoded is None or given is None:
            return None
        if not hmac.compare_digest(given, self._signature(purpose, decoded)):
            return None
        return decoded.decode("utf-8")

    def _signature(self, purpose: str, content: bytes) -> bytes:
        return hmac.digest(self.secret, purpose.encode() + b"\0" + content, "sha256")


def _visitor(content: str) -> Visitor | None:
    role, _, name = content.partition(":")
    for known in get_args(Role):
        if role == known and name:
            return Visitor(known, name)
    return None


def _secret_of(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(SECRET_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise DataError(f"{path}: others can read it and make links; do `chmod 600 {path}`")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise DataError(
            f"{path}: {len(secret)} bytes instead of {SECRET_BYTES}; remove it, and send the "
            "readers new links"
        )
    return secret


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except ValueError:
        return None
