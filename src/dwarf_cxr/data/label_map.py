"""Label maps: which names of a data set are which findings of the shared vocabulary."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from dwarf_cxr.data.records import Finding
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import VOCABULARY

FORMAT = "dwarf-label-map-1"
SHARED = "shared"
"""What the package's own map is called on the command line."""

Names = Mapping[Finding, tuple[Finding, ...]]
"""A set's own names and what they show; a name without a shared finding shows itself.

Where it is written as a shared finding is, it shows "NAME (SET)": what no other set has.
"""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The names of data sets in the shared vocabulary; label_maps.yaml says how it is written."""

    sets: Mapping[str, Names]
    """By the data set's name."""
    merged: Mapping[Finding, tuple[Finding, ...]]
    """Shared findings that are present where one of several shared findings is."""
    source: str
    """Where it was read: "shared", or a file laid over it."""

    def names_of(self, data_set: str) -> Names:
        """The names of a data set; empty for one that is not in the map."""
        return self.sets.get(data_set, {})

    @property
    def sha256(self) -> str:
        """Of the content, wherever and however it was written."""
        content = json.dumps([dict(self.sets), dict(self.merged)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def load_label_map(file: Path | None = None) -> LabelMap:
    """The package's map, with `file` laid over it.

    A data set or merged finding that `file` has is taken from there as a whole; the others stay.

    Raises:
        ConfigError: no such file, or not in the form of label_maps.yaml; lists all faults.
    """
    resource = files("dwarf_cxr.data").joinpath("label_maps.yaml")
    base = _read(resource.read_text(encoding="utf-8"), SHARED, {})
    if file is None or str(file) == SHARED:
        return base
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(
            f"label map {file}: no such file; give a YAML file, or {SHARED} for the package's own"
        ) from None
    except UnicodeDecodeError as fault:
        raise ConfigError(f"label map {file}: not UTF-8 ({fault})") from None
    return _read(text, str(file), {"sets": base.sets, "merged": base.merged})


def _read(text: str, where: str, base: Mapping[str, Mapping[str, Any]]) -> LabelMap:
    try:
        content = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as fault:
        raise ConfigError(f"label map {where}: not valid YAML ({fault})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"label map {where}: begin it with 'format: {FORMAT}'")
    faults = [
        f"unknown key {key!r}; known: format, merged, sets"
        for key in content
        if key not in ("format", "merged", "sets")
    ]
    merged = {**base.get("merged", {}), **_merged(content.get("merged"), faults)}
    sets = {**base.get("sets", {}), **_sets(content.get("sets"), merged, faults)}
    if faults:
        raise ConfigError("\n".join(f"label map {where}: {fault}" for fault in faults))
    return LabelMap(sets, merged, where)


def _merged(block: Any, faults: list[str]) -> dict[Finding, tuple[Finding, ...]]:
    merged = {}
    for name, parts in _entries(block, "merged", faults):
        if not _is_list_of_names(parts) or len(parts) < 2:
            faults.append(f"merged.{name}: list the two or more findings that it is made of")
            continue
        unknown = [part for part in parts if part not in VOCABULARY]
        if unknown:
            faults.append(f"merged.{name}: {_unknown(unknown)}")
        if name in VOCABULARY:
            faults.append(f"merged.{name}: is a finding of its own; choose another name")
        merged[name] = tuple(parts)
    return merged


def _sets(block: Any, merged: Mapping[Finding, Any], faults: list[str]) -> dict[str, Names]:
    sets: dict[str, Names] = {}
    for data_set, names in _entries(block, "sets", faults):
        read: dict[Finding, tuple[Finding, ...]] = {}
        for name, written in _entries(names, f"sets.{data_set}", faults):
            shown = [written] if isinstance(written, str) else written
            if shown is None:
                taken = name in VOCABULARY or name in merged
                read[name] = (f"{name} ({data_set})" if taken else name,)
            elif not _is_list_of_names(shown) or not shown:
                faults.append(
                    f"sets.{data_set}.{name}: give a shared finding, a list of them, or nothing"
                )
            else:
                unknown = [one for one in shown if one not in VOCABULARY and one not in merged]
                if unknown:
                    faults.append(f"sets.{data_set}.{name}: {_unknown(unknown)}")
                read[name] = tuple(shown)
        sets[data_set] = read
    return sets


def _entries(block: Any, where: str, faults: list[str]) -> list[tuple[str, Any]]:
    if block is None:
        return []
    if not isinstance(block, dict) or not all(isinstance(key, str) for key in block):
        faults.append(f"{where}: expected lines of 'name: ...', with names as text")
        return []
    return list(block.items())


def _is_list_of_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(one, str) and one for one in value)
        and len(set(value)) == len(value)
    )


def _unknown(names: Sequence[str]) -> str:
    return (
        f"{', '.join(map(repr, names))} is not in the shared vocabulary "
        f"({', '.join(VOCABULARY)}) nor merged; correct it, or leave the name without a finding"
    )


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
