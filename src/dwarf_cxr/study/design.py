"""The design of a study: which films, which pairs of maps, in which order, on which side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from shlex import quote
from typing import Literal

import numpy as np

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError

REPEAT_GAP = 0.25
"""At least this share of the comparisons lies between a comparison and its repeat."""

Choice = Literal["A", "B", "tie"]
"""Left, right, or neither."""


@dataclass(frozen=True)
class Comparison:
    """Two maps of a finding on a film. Their order says nothing of whose they are."""

    comparison_id: str
    film: str
    finding: str
    maps: tuple[str, str]


@dataclass(frozen=True)
class Place:
    """A comparison as one reader sees it."""

    comparison_id: str
    swapped: bool
    """Whether the second of the comparison's maps is A, on the left."""
    repeat: bool
    """Whether the reader was shown it before, on the other sides."""


def choose_films(
    data: PreparedData,
    findings: Sequence[str],
    per_finding: int,
    generator: np.random.Generator,
    *,
    split: str,
    with_regions: bool,
) -> dict[str, list[int]]:
    """Indices of `per_finding` films of the split for each finding that is present on them.

    A patient is taken once for a finding, and for another finding only when no other patient is
    left, then with another film if there is one. With `with_regions` only films with a
    region of the finding are taken.

    Raises:
        ConfigError: fewer than one film is asked for.
        DataError: findings with too few patients; names all of them with their numbers, and what
            would do.
    """
    if per_finding < 1:
        raise ConfigError(f"--per-finding {per_finding}: ask for at least one film")
    candidates = data.indices(split)
    has_region = data.has_region()
    chosen: dict[str, list[int]] = {}
    patients: dict[str, int] = {}
    used: set[int] = set()
    seen: set[str] = set()
    for finding in findings:
        column = data.findings.index(finding)
        there = [
            int(index)
            for index in candidates
            if data.labels[index, column] == 1 and (has_region[index, column] or not with_regions)
        ]
        order = generator.permutation(np.array(there, dtype=np.int64)).tolist()
        # stable: fresh patients first, and of a patient's films fresh ones
        order.sort(key=lambda index: (data.patient_ids[index] in seen, index in used))
        by_patient: dict[str, int] = {}
        for index in order:
            by_patient.setdefault(data.patient_ids[index], index)
        patients[finding] = len(by_patient)
        chosen[finding] = list(by_patient.values())[:per_finding]
        used.update(chosen[finding])
        seen.update(data.patient_ids[index] for index in chosen[finding])
    if min(patients.values(), default=per_finding) < per_finding:
        raise _too_few(patients, per_finding, data, split, with_regions=with_regions)
    return chosen


def _too_few(
    patients: Mapping[str, int],
    per_finding: int,
    data: PreparedData,
    split: str,
    *,
    with_regions: bool,
) -> DataError:
    short = [name for name, there in patients.items() if there < per_finding]
    enough = [name for name in patients if name not in short]
    least = min(patients.values())
    remedies = [
        *([f"give --per-finding {least}"] if least else []),
        *([f"leave them out with --findings {quote(','.join(enough))}"] if enough else []),
    ]
    lowered = {name: there for name, there in patients.items() if there}
    if not remedies and lowered:
        remedies = [
            f"give --per-finding {min(lowered.values())} --findings {quote(','.join(lowered))}",
        ]
    return DataError(
        f"{data.folder}, split {split!r}: too few patients{' with a region' * with_regions} for "
        f"{per_finding} films, each of another patient, of "
        f"{', '.join(f'{name} ({patients[name]})' for name in short)}; "
        f"{' or '.join(remedies) or 'take other data or another --split'}"
    )


def pairs_of(runs: Sequence[str]) -> list[tuple[str, str]]:
    """Every two runs, in their order."""
    return list(combinations(runs, 2))


def reading_list(
    comparisons: Sequence[Comparison],
    run_of_map: Mapping[str, str],
    *,
    repeats: int,
    generator: np.random.Generator,
) -> list[Place]:
    """One reader's order and sides.

    Of every two runs, the first is on the left in half of the comparisons (give or take one), as
    near as can be for every finding too. The order is random. `repeats` comparisons come a second
    time, no sooner than after `REPEAT_GAP` of all, with the sides exchanged.

    Raises:
        ConfigError: more repeats than comparisons far enough from the end.
    """
    most = len(comparisons) - round(len(comparisons) * REPEAT_GAP)
    if not 0 <= repeats <= most:
        raise ConfigError(
            f"--repeats {repeats}: of {len(comparisons)} comparisons at most {most} can be repeated"
        )
    places: list[Place] = []
    for pair in sorted({_runs(one, run_of_map) for one in comparisons}):
        its = [one for one in comparisons if _runs(one, run_of_map) == pair]
        by_finding = sorted({one.finding for one in its})
        first_left = bool(generator.integers(2))
        for number in generator.permutation(len(by_finding)):
            group = [one for one in its if one.finding == by_finding[number]]
            for position in generator.permutation(len(group)):
                one = group[position]
                swapped = (run_of_map[one.maps[0]] == pair[0]) != first_left
                places.append(Place(one.comparison_id, swapped, repeat=False))
                first_left = not first_left
    order = [places[number] for number in generator.permutation(len(places))]
    gap = round(len(order) * REPEAT_GAP)
    again = sorted(generator.permutation(most)[:repeats].tolist(), reverse=True)
    inserted: list[tuple[int, Place]] = []
    for earlier in again:
        later = int(generator.integers(earlier + gap, len(order))) + 1
        one = order[earlier]
        inserted.append((later, Place(one.comparison_id, not one.swapped, repeat=True)))
    for later, place in sorted(inserted, key=lambda item: item[0], reverse=True):
        order.insert(later, place)
    return order


def _runs(one: Comparison, run_of_map: Mapping[str, str]) -> tuple[str, str]:
    first, second = sorted(run_of_map[name] for name in one.maps)
    return first, second
