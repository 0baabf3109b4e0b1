"""Who is asking: private links, and the sessions that they open.

A link names a role and a reader and is signed with a secret of the folder, so that nothing has to
be remembered of it; it can be opened again at any time. Opening it sets a cookie and leads to an
address without the signature. Every signature has a purpose, so that none serves for another.

Only a reader whose link was withdrawn is remembered, in links.json: without a mark as long as
nothing signed for them counts, then with the mark that is part of every new signature. The file is
read anew for every request, so that a server that is running knows at once.
"""

import base64
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dwarf_cxr.errors import DataError
from dwarf_cxr.files import exclusive, read_json, write_json

Role = Literal["reader", "owner"]

SECRET_FILE = "secret"
SECRET_BYTES = 32
MARKS_FILE = "links.json"
MARK_BYTES = 8
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
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> "Links":
        """With the folder's secret, made at the first call, readable by its owner alone.

        Raises:
            DataError: the secret is damaged, or others can read it.
        """
        return cls(_secret_of(folder / SECRET_FILE), Path(folder))

    @property
    def cookie(self) -> str:
        """The cookie's name: cookies of a host are shared by its ports, and so by other folders."""
        return f"session-{hashlib.sha256(b'cookie' + self.secret).hexdigest()[:12]}"

    def path(self, visitor: Visitor) -> str | None:
        """The private link of a visitor, from the host's root; None if it was withdrawn."""
        token = self._signed("link", visitor, _words(visitor))
        return None if token is None else ENTRY + token

    def visitor_of_link(self, token: str) -> Visitor | None:
        """Whom a link was made for; None if not with this secret, or if it was withdrawn."""
        content, signature = _parts(token)
        visitor = _visitor(content)
        if visitor is None or not self._is_signed("link", visitor, content, signature):
            return None
        return visitor

    def session(self, visitor: Visitor, now: float | None = None) -> str | None:
        """The content of a cookie that lasts `SESSION_SECONDS`; None if the link was withdrawn."""
        ends = round((time.time() if now is None else now) + SESSION_SECONDS)
        return self._signed("session", visitor, f"{ends}:{_words(visitor)}")

    def visitor_of_session(
        self, cookie: str, now: float | None = None
    ) -> tuple[Visitor, float] | None:
        """Whose session it is and for how many more seconds.

        None if it is over or not ours, or if the visitor's link was withdrawn since.
        """
        content, signature = _parts(cookie)
        ends, _, rest = content.partition(":")
        visitor = _visitor(rest)
        if visitor is None or not self._is_signed("session", visitor, content, signature):
            return None
        left = float(ends) - (time.time() if now is None else now)
        return None if left <= 0 else (visitor, left)

    def withdraw(self, visitor: Visitor) -> None:
        """Make the visitor's links and sessions invalid, at once, until they are admitted again."""
        with exclusive(self.folder):
            write_json(self.folder / MARKS_FILE, {**self._marks(), _words(visitor): None})

    def admit(self, visitor: Visitor) -> None:
        """Give a visitor whose link was withdrawn a new one; the earlier ones stay invalid."""
        with exclusive(self.folder):
            marks = self._marks()
            if marks.get(_words(visitor), "") is None:
                marks[_words(visitor)] = secrets.token_hex(MARK_BYTES)
                write_json(self.folder / MARKS_FILE, marks)

    def form_token(self, visitor: Visitor) -> str:
        """What a page must send with every change.

        It outlasts the session, so that a page left open can still send what it holds once its
        link, or a new one, was opened; it serves nobody else, since it needs the visitor's cookie.
        """
        return _text(self._signature("form", _words(visitor)))

    def is_form_token(self, token: str, visitor: Visitor) -> bool:
        """Whether a change comes from a page of this visitor."""
        return hmac.compare_digest(token.encode(), self.form_token(visitor).encode())

    def _signed(self, purpose: str, visitor: Visitor, content: str) -> str | None:
        marked = self._marked(purpose, visitor)
        if marked is None:
            return None
        return f"{_text(content.encode('utf-8'))}.{_text(self._signature(marked, content))}"

    def _is_signed(self, purpose: str, visitor: Visitor, content: str, signature: bytes) -> bool:
        marked = self._marked(purpose, visitor)
        if marked is None:
            return False
        return hmac.compare_digest(signature, self._signature(marked, content))

    def _marked(self, purpose: str, visitor: Visitor) -> str | None:
        """The purpose with the visitor's mark; None if nothing of theirs is to be signed."""
        mark = self._marks().get(_words(visitor), "")
        return None if mark is None else f"{purpose} {mark}".rstrip()

    def _marks(self) -> dict[str, str | None]:
        path = self.folder / MARKS_FILE
        return dict(read_json(path)) if path.exists() else {}

    def _signature(self, purpose: str, content: str) -> bytes:
        return hmac.digest(self.secret, f"{purpose}\0{content}".encode(), "sha256")


def _words(visitor: Visitor) -> str:
    return f"{visitor.role}:{visitor.name}"


def _parts(token: str) -> tuple[str, bytes]:
    """What a token says and its signature; empty where it is none."""
    content, _, signature = token.partition(".")
    decoded, given = _bytes(content), _bytes(signature)
    try:
        return (decoded or b"").decode("utf-8"), given or b""
    except UnicodeDecodeError:
        return "", b""


def _visitor(content: str) -> Visitor | None:
    role, _, name = content.partition(":")
    for known in get_args(Role):
        if role == known and name:
            return Visitor(known, name)
    return None


def _secret_of(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".secret.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(SECRET_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            # whole or not at all, and never over one that another process made meanwhile
            with suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)
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
