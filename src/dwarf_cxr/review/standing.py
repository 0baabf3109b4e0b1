"""What all readers have said so far and how they differ, kept up with the ledger.

Pages ask for all of it at every request. To read a large ledger whole and to lay all regions over
each other takes seconds; so only what was changed since the last request is read and compared, and
what follows from the words on one finding is worked out anew when those have changed.
"""

from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any, TypeVar

from dwarf_cxr.data.records import Finding
from dwarf_cxr.review.agreement import Difference, difference
from dwarf_cxr.review.annotation import Assessment
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.ledger import Ledger

Words = Mapping[str, Assessment]
"""What readers say of one finding in one film."""
Said = Mapping[int, Words]
"""What readers say of one finding, by film."""
Result = TypeVar("Result")


class Standing:
    """The readers' words of one review, for several threads at once."""

    def __init__(self, review: Review, ledger: Ledger) -> None:
        self._review = review
        self._ledger = ledger
        self._lock = Lock()
        self._last = 0
        self._said: dict[Finding, Said] = {name: {} for name in review.settings.findings}
        self._differences: dict[
            tuple[Finding, int, str, str], tuple[Assessment, Assessment, Difference | None]
        ] = {}
        self._kept: dict[Hashable, tuple[Said, Any]] = {}

    def said(self) -> Mapping[Finding, Said]:
        """The newest words on the review's findings; what is returned never changes."""
        with self._lock:
            last, news = self._ledger.news(self._last)
            if last != self._last:
                fresh: dict[Finding, dict[int, Words]] = {}
                for (film, finding), reader, assessment in news:
                    if finding in self._said:
                        its = fresh.setdefault(finding, dict(self._said[finding]))
                        its[film] = {**its.get(film, {}), reader: assessment}
                self._said, self._last = {**self._said, **fresh}, last
            return self._said

    def difference(
        self, finding: Finding, film: int, words: Words, one: str, other: str
    ) -> Difference | None:
        """How two readers differ; None while either has no verdict."""
        if one not in words or other not in words:
            return None
        key = finding, film, one, other
        known = self._differences.get(key)
        if known is not None and known[0] is words[one] and known[1] is words[other]:
            return known[2]
        found = difference(words[one], words[other], self._review.frame(film))
        self._differences[key] = words[one], words[other], found
        return found

    def once(self, what: Hashable, said: Said, work_out: Callable[[], Result]) -> Result:
        """What `work_out` makes of the words on a finding; kept until these change."""
        known = self._kept.get(what)
        if known is None or known[0] is not said:
            known = said, work_out()
            self._kept[what] = known
        result: Result = known[1]
        return result
