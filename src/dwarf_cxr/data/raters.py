"""What several raters said of one radiograph, and what enough of them agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from dwarf_cxr.data.geometry import area, fault_of
from dwarf_cxr.data.records import Box, Finding, Region

AGREEING = 2
"""Raters who must say the same for it to count; where only one rated a finding, that one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one rater said of one radiograph.

    A finding missing from `labels` was not assessed. `regions` are boxes, of whatever the rater
    drew, with the rater as annotator.
    """

    labels: Mapping[Finding, bool]
    regions: tuple[Region, ...]

    def boxes(self, finding: Finding) -> tuple[Box, ...]:
        """The boxes of one finding."""
        return tuple(
            region.shape
            for region in self.regions
            if region.finding == finding and isinstance(region.shape, Box)
        )


@dataclass(frozen=True, slots=True)
class Fusion:
    """Labels and regions that stand for all raters; `apart`: findings they boxed apart."""

    labels: Mapping[Finding, bool]
    regions: tuple[Region, ...]
    apart: tuple[Finding, ...]


def fuse(readings: Mapping[str, Reading], findings: Sequence[Finding]) -> Fusion:
    """One statement from `readings` by rater.

    A finding is present when `AGREEING` raters call it so (the only one, where one rated it), and
    absent otherwise. Its region is what `AGREEING` of those raters boxed; where that is nothing,
    because they boxed different spots or only one of them drew a box, it is all their boxes. The
    annotator of a region names the raters who agreed on it, as in "R8+R10".
    """
    labels: dict[Finding, bool] = {}
    regions: list[Region] = []
    apart: list[Finding] = []
    for finding in findings:
        votes = {
            rater: reading.labels[finding]
            for rater, reading in readings.items()
            if finding in reading.labels
        }
        if not votes:
            continue
        labels[finding] = sum(votes.values()) >= min(AGREEING, len(votes))
        if not labels[finding]:
            continue
        drawn = {rater: readings[rater].boxes(finding) for rater, vote in votes.items() if vote}
        chosen = agreement(drawn)
        if not chosen:
            chosen = [(box, rater) for rater, boxes in drawn.items() for box in boxes]
            if chosen and len(votes) >= AGREEING:
                apart.append(finding)
        regions.extend(Region(finding, box, raters) for box, raters in chosen)
    return Fusion(labels, tuple(regions), tuple(apart))


def agreement(drawn: Mapping[str, Sequence[Box]]) -> list[tuple[Box, str]]:
    """What at least two raters boxed, as boxes whose union it is exactly, with who agreed there.

    It is the union of what any two boxes of different raters share; of those boxes, none that lies
    within another is kept. Empty where no two raters' boxes share an area.
    """
    shared = [
        (box, f"{one}+{other}")
        for (one, ones), (other, others) in combinations(drawn.items(), 2)
        for first in ones
        for second in others
        if (box := _intersection(first, second)) is not None
    ]
    shared.sort(key=lambda pair: -area(pair[0]))
    outermost: list[tuple[Box, str]] = []
    for box, raters in shared:
        if not any(_contains(larger, box) for larger, _ in outermost):
            outermost.append((box, raters))
    return outermost


def _intersection(one: Box, other: Box) -> Box | None:
    """What two boxes share, None when it has no area."""
    box = Box(
        max(one.x1, other.x1), max(one.y1, other.y1), min(one.x2, other.x2), min(one.y2, other.y2)
    )
    return box if fault_of(box) is None else None


def _contains(outer: Box, inner: Box) -> bool:
    return (
        outer.x1 <= inner.x1
        and outer.y1 <= inner.y1
        and outer.x2 >= inner.x2
        and outer.y2 >= inner.y2
    )
