"""Which views of the chest a data set's films are, and which of them are taken."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal

View = Literal["frontal", "lateral", "unknown"]

_WORDS: Mapping[View, str] = {
    "frontal": "known to be frontal",
    "lateral": "lateral",
    "unknown": "of a view that no table tells",
}


def chosen_views(*, lateral: bool, unknown_views: bool) -> frozenset[View]:
    """The views to take: frontal always, the others when asked for."""
    chosen: set[View] = {"frontal"}
    if lateral:
        chosen.add("lateral")
    if unknown_views:
        chosen.add("unknown")
    return frozenset(chosen)


def views_note(views: Collection[View], chosen: frozenset[View]) -> str:
    """How many films were taken and left out for their view."""
    counts = Counter(views)
    parts = [
        f"{counts[view]} {words}, {'taken' if view in chosen else 'left out'}"
        for view, words in _WORDS.items()
    ]
    return f"views of {len(views)} films: {'; '.join(parts)}"
