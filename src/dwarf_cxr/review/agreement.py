"""What two readers agree on, and what stands for all who read a film."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import get_args

import numpy as np

from dwarf_cxr.data.geometry import Frame, overlap_pixels
from dwarf_cxr.data.records import Shape
from dwarf_cxr.evaluation.kappa import cohen_kappa
from dwarf_cxr.review.annotation import NOTHING, Assessment, MarkedRegion, Verdict
from dwarf_cxr.review.merging import Named, merged

AGREEING_IOU = 0.5
"""Regions of two readers that overlap less call for a third opinion."""


def overlap(one: Sequence[Shape], other: Sequence[Shape], frame: Frame) -> float | None:
    """The IoU of two unions of shapes, in pixels of the film; None when both are empty."""
    both, either = overlap_pixels(one, other, frame)
    return None if either == 0 else both / either


def verdict_kappa(pairs: Sequence[tuple[Verdict, Verdict]]) -> float | None:
    """Cohen's kappa of two readers' verdicts; None where it is undefined."""
    verdicts = get_args(Verdict)
    table = np.zeros((len(verdicts), len(verdicts)), dtype=np.int64)
    for one, other in pairs:
        table[verdicts.index(one), verdicts.index(other)] += 1
    kappa = cohen_kappa(table)
    return None if math.isnan(kappa) else kappa


@dataclass(frozen=True, slots=True)
class Difference:
    """Why two readers' words on a finding call for a third."""

    verdicts: bool
    """They differ in whether it is there."""
    iou: float | None
    """Of their regions, where both call it present and either marked one."""

    @property
    def matters(self) -> bool:
        """Whether it does call for a third opinion."""
        return self.verdicts or (self.iou is not None and self.iou < AGREEING_IOU)


def difference(one: Assessment, other: Assessment, frame: Frame) -> Difference | None:
    """How two assessments differ; None while either has no verdict."""
    if one.verdict is None or other.verdict is None:
        return None
    if one.verdict != other.verdict:
        return Difference(verdicts=True, iou=None)
    are_present = one.verdict == "present"
    return Difference(
        verdicts=False, iou=overlap(one.shapes, other.shapes, frame) if are_present else None
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What stands for all readers of a finding in a film; `verdict` None where they disagree."""

    verdict: Verdict | None
    regions: tuple[Named, ...]
    """Each with the reader who marked it, or the readers, as in "anna+ben"."""
    readers: tuple[str, ...]
    """Whose word it is."""
    rejected: tuple[MarkedRegion, ...] = ()
    """Suggestions that those readers refused."""
    disputed: tuple[Named, ...] = ()
    """What they marked where all call it present but do not agree where it is: nothing of it
    stands, and `regions` is empty, until the adjudicator decides."""


def decide(
    said: Mapping[str, Assessment], readers: Sequence[str], adjudicator: str | None, frame: Frame
) -> Decision | None:
    """What stands for all; None where nobody gave a verdict.

    The adjudicator's word, once given, is the last. Otherwise readers who agree are taken
    together: the verdict they share, and their regions, those of one lesion `merged`. Where they
    do not agree it is open: in the verdict all of it, in the regions these (`Difference.matters`).
    """
    third = said.get(adjudicator, NOTHING) if adjudicator is not None else NOTHING
    if adjudicator is not None and third.verdict is not None:
        return _of({adjudicator: third}, frame)
    given = {name: said[name] for name in readers if name in said}
    given = {name: one for name, one in given.items() if one.verdict is not None}
    if not given:
        return None
    if len({one.verdict for one in given.values()}) > 1:
        return Decision(None, (), tuple(given))
    return _of(given, frame)


def _of(given: Mapping[str, Assessment], frame: Frame) -> Decision:
    verdict = next(iter(given.values())).verdict
    rejected = tuple(
        region for one in given.values() for region in one.regions if region.origin == "rejected"
    )
    marked = {name: one.counting for name, one in given.items()}
    differences = (difference(*pair, frame) for pair in combinations(given.values(), 2))
    if any(why is not None and why.matters for why in differences):
        disputed = tuple((name, region) for name, its in marked.items() for region in its)
        return Decision(verdict, (), tuple(given), rejected, disputed)
    return Decision(verdict, merged(marked, frame), tuple(given), rejected)
