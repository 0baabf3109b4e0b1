"""Findings of different data sets made comparable: one name, one meaning, unknown never negative.

A shared finding is the union of its parts, which are a set's own findings:

- present where a part is present;
- absent where every part was assessed and is absent;
- else never assessed: nothing is concluded from a part that nobody looked for;
- its regions are those of its parts. Where it is present, a region on a part that is not present
  is left out, since such regions are not used (the labels stand); and where a present part has no
  region the union has none: that part is somewhere, and the others' regions are not the whole.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float32

from dwarf_cxr.data.label_map import LabelMap, Names
from dwarf_cxr.data.records import Finding, Region, RegionKind, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import VOCABULARY, select


@dataclass(frozen=True, slots=True)
class FindingUnion:
    """A finding in terms of a set's own."""

    parts: tuple[Finding, ...]
    missing: tuple[Finding, ...] = ()
    """Parts that the set does not have: never assessed on any of its images."""


@dataclass(frozen=True, slots=True)
class SharedFinding:
    """What a model and a data set can be compared on."""

    name: Finding
    model: tuple[Finding, ...]
    """The model's findings that it is the union of."""
    data: FindingUnion


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a model's findings meet those of a data set."""

    shared: tuple[SharedFinding, ...]
    """In the model's order."""
    unmatched: tuple[Finding, ...]
    """The model's findings that the data have no counterpart of."""
    untrained: tuple[Finding, ...]
    """The data's findings that the model has no counterpart of."""

    @property
    def model_parts(self) -> dict[Finding, tuple[Finding, ...]]:
        """The model's parts of every shared finding."""
        return {one.name: one.model for one in self.shared}

    @property
    def data_unions(self) -> dict[Finding, FindingUnion]:
        """The data's parts of every shared finding."""
        return {one.name: one.data for one in self.shared}


def shared_unions(
    findings: Sequence[Finding], names: Names, *, own: bool = False
) -> dict[Finding, FindingUnion]:
    """What the findings of a set are in the shared vocabulary, in the set's order.

    A finding that `names` does not list stands for itself. A part that `names` lists but that is
    not among `findings` is missing, unless the only part there bears the shared name itself: it
    then is the shared finding, whoever made it so. Of findings that are known to bear the set's
    `own` names one that `names` lists is no more than the part it is.
    """
    parts: dict[Finding, list[Finding]] = {}
    for finding in findings:
        for shared in names.get(finding, (finding,)):
            parts.setdefault(shared, []).append(finding)
    unions = {}
    for shared, there in parts.items():
        listed = [name for name, shown in names.items() if shared in shown]
        is_whole = there == [shared] and not (own and shared in names)
        missing = [] if is_whole else [name for name in listed if name not in there]
        unions[shared] = FindingUnion(tuple(there), tuple(missing))
    return unions


def with_merged(
    unions: Mapping[Finding, FindingUnion], merged: Mapping[Finding, Sequence[Finding]]
) -> dict[Finding, FindingUnion]:
    """`unions`, and the merged findings that at least one of them is a part of."""
    extended = dict(unions)
    for name, shared in merged.items():
        there = [unions[one] for one in shared if one in unions]
        if name in unions or not there:
            continue
        parts = dict.fromkeys(part for union in there for part in union.parts)
        missing = dict.fromkeys(part for union in there for part in union.missing)
        absent = [one for one in shared if one not in unions]
        extended[name] = FindingUnion(tuple(parts), (*missing, *absent))
    return extended


def agree(
    model_findings: Sequence[Finding],
    model_set: str,
    data_findings: Sequence[Finding],
    data_set: str,
    label_map: LabelMap,
    *,
    model_harmonised: Mapping[Finding, Sequence[Finding]] | None = None,
    data_harmonised: Mapping[Finding, Sequence[Finding]] | None = None,
) -> Agreement:
    """How the findings of a model, trained on `model_set`, meet those of `data_set`.

    1. A name that both have is the same finding if both are of one data set, if the label map
       makes the same of it on both sides and of nothing else there, or if it is outside the
       vocabulary and the map does not list it for both.
    2. Else findings are compared by what the label map makes of them. The model must have all
       parts of such a finding. A merged finding is used only where one of the two sides has it
       under its own name.

    What is already compared is not compared once more as a whole.

    Findings that were harmonised at preparing are shared findings already, and no longer the set's
    own; of one data set, the names that they were made of hold for the other side too, whatever
    `label_map` says.

    Args:
        model_harmonised: own names and what became of them in the model's training data; empty for
            a set under its own names, None where it is not known: names of one set are then taken
            to mean the same.
        data_harmonised: the same of the data.

    Raises:
        DataError: no finding is shared (names both vocabularies), or one data set was harmonised
            in two ways.
    """
    trained, judged = _as_names(model_harmonised), _as_names(data_harmonised)
    one_set = model_set == data_set
    if one_set and trained and judged:
        _refuse_two_meanings([*model_findings, *data_findings], data_set, trained, judged)
    same_names = one_set and (trained is None or judged is None or trained == judged)
    model_names = _names_of(model_set, label_map, trained, judged if one_set else None)
    data_names = _names_of(data_set, label_map, judged, trained if one_set else None)
    model_own = shared_unions(model_findings, model_names, own=trained == {})
    data_own = shared_unions(data_findings, data_names, own=judged == {})

    def is_same(name: Finding) -> bool:
        one, other = _alone(name, model_own, model_names), _alone(name, data_own, data_names)
        if same_names or (one is not None and one == other):
            return True
        if one_set:
            return False
        listed_twice = name in model_names and name in data_names
        return not (listed_twice or name in VOCABULARY or name in label_map.merged)

    shared = [
        SharedFinding(name, (name,), FindingUnion((name,)))
        for name in model_findings
        if name in data_findings and is_same(name)
    ]
    known = {one.name for one in shared}
    model_all = with_merged(model_own, label_map.merged)
    data_all = with_merged(data_own, label_map.merged)
    for name, union in model_all.items():
        other = data_all.get(name)
        if other is None or union.missing or name in known:
            continue
        if name not in model_own and name not in data_own:
            continue
        if {*union.parts, *other.parts} <= known:
            continue
        shared.append(SharedFinding(name, union.parts, other))
    if not shared:
        raise DataError(
            f"no finding is shared: the model, trained on {model_set}, knows "
            f"{', '.join(model_findings)}; {data_set} has {', '.join(data_findings)}; "
            "name what is the same in a file for --label-map"
        )
    shared.sort(key=lambda one: min(model_findings.index(part) for part in one.model))
    used_model = {part for one in shared for part in one.model}
    used_data = {part for one in shared for part in one.data.parts}
    return Agreement(
        tuple(shared),
        tuple(name for name in model_findings if name not in used_model),
        tuple(name for name in data_findings if name not in used_data),
    )


def _as_names(harmonised: Mapping[Finding, Sequence[Finding]] | None) -> Names | None:
    if harmonised is None:
        return None
    return {name: tuple(shown) for name, shown in harmonised.items()}


def _names_of(
    data_set: str, label_map: LabelMap, harmonised: Names | None, others: Names | None
) -> Names:
    """What the names of one side mean; `others` is how the same set was harmonised elsewhere."""
    return {} if harmonised else others or label_map.names_of(data_set)


def _refuse_two_meanings(
    findings: Sequence[Finding], data_set: str, trained: Names, judged: Names
) -> None:
    def made_of(name: Finding, names: Names) -> list[Finding]:
        return sorted(own for own, shown in names.items() if name in shown) or [name]

    for name in findings:
        one, other = made_of(name, trained), made_of(name, judged)
        if one != other:
            raise DataError(
                f"{data_set}: {name} was {' or '.join(one)} where the model was trained, and is "
                f"{' or '.join(other)} here; prepare both with the same --label-map"
            )


def _alone(name: Finding, unions: Mapping[Finding, FindingUnion], names: Names) -> Finding | None:
    """The one shared finding that `name` is, whole and alone; None when it is less or more."""
    shown = names.get(name, (name,))
    return shown[0] if len(shown) == 1 and unions[shown[0]] == FindingUnion((name,)) else None


def union_labels(
    labels: Float32[np.ndarray, "image part"], *, complete: bool
) -> Float32[np.ndarray, "image"]:
    """1 where a part is 1, 0 where all parts are 0 and none is missing, else NaN."""
    result = np.full(len(labels), np.nan, dtype=np.float32)
    if complete:
        result[(labels == 0).all(axis=1)] = 0
    result[(labels == 1).any(axis=1)] = 1
    return result


def union_label(labels: Sequence[bool | None]) -> bool | None:
    """The same for one image; None is never assessed."""
    if any(label is True for label in labels):
        return True
    return False if all(label is False for label in labels) else None


def harmonise_data(data: PreparedData, unions: Mapping[Finding, FindingUnion]) -> PreparedData:
    """Prepared data with the findings `unions`, in their order; images and pixels are the same.

    The fingerprint stays that of the folder.

    Raises:
        ConfigError: a part is not among the findings of the data.
    """
    parts = dict.fromkeys(part for union in unions.values() for part in union.parts)
    columns = {
        part: data.findings.index(part)
        for part in select(tuple(parts), data.findings, where=str(data.folder))
    }
    labels = np.empty((len(data.image_ids), len(unions)), dtype=np.float32)
    for number, union in enumerate(unions.values()):
        own = data.labels[:, [columns[part] for part in union.parts]]
        labels[:, number] = union_labels(own, complete=not union.missing)
    regions = {}
    for index, drawn in data.regions_by_image.items():
        present = {part for part, column in columns.items() if data.labels[index, column] == 1}
        regions[index] = _renamed(drawn, present, unions)
    return dataclasses.replace(
        data, findings=tuple(unions), labels=labels, regions_by_image=regions
    )


def harmonise_source(source: SourceSet, label_map: LabelMap) -> SourceSet:
    """A data set as its reader found it, under the names of the shared vocabulary.

    Names that the map does not list stay. A note says what was joined.
    """
    names = label_map.names_of(source.name)
    unions = shared_unions(source.findings, names)
    radiographs = []
    for one in source.radiographs:
        labels = {}
        for name, union in unions.items():
            label = union_label([one.labels.get(part) for part in (*union.parts, *union.missing)])
            if label is not None:
                labels[name] = label
        present = {finding for finding, label in one.labels.items() if label}
        regions = _renamed(one.regions, present, unions)
        radiographs.append(dataclasses.replace(one, labels=labels, regions=regions))
    changed = [
        f"{name} = {' or '.join(union.parts)}"
        + (f" (never absent: {', '.join(union.missing)} is not assessed)" if union.missing else "")
        for name, union in unions.items()
        if union != FindingUnion((name,))
    ]
    note = f"findings named by the label map {label_map.source} ({label_map.sha256[:12]}…)"
    return dataclasses.replace(
        source,
        findings=tuple(unions),
        radiographs=tuple(radiographs),
        harmonised=names,
        notes=(*source.notes, f"{note}: {'; '.join(changed) or 'no change'}"),
    )


def _renamed(
    regions: Sequence[Region], present: set[Finding], unions: Mapping[Finding, FindingUnion]
) -> tuple[Region, ...]:
    """The regions of every union, in its name.

    Those of experts and those of teachers by themselves: a part that only a teacher has drawn does
    not make the experts' regions of a union whole.
    """
    drawn = {(region.kind, region.finding) for region in regions}
    used: dict[tuple[RegionKind, Finding], list[Finding]] = {}
    for name, union in unions.items():
        there = present.intersection(union.parts)
        for kind in get_args(RegionKind):
            if all((kind, part) in drawn for part in there):
                for part in there or union.parts:
                    used.setdefault((kind, part), []).append(name)
    return tuple(
        dataclasses.replace(region, finding=name)
        for region in regions
        for name in used.get((region.kind, region.finding), ())
    )
