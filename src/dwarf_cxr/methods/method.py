"""What a method is: a name, what it needs, and its default settings."""

from dataclasses import dataclass

from dwarf_cxr.config import MethodSettings


@dataclass(frozen=True)
class Method:
    """A named combination of model, objective and schedule."""

    name: str
    summary: str
    supervision: str
    """What the training reads: labels, regions, text."""
    settings: MethodSettings
    zero_shot: bool = False
    """Nothing is trained: weights come with `--init`, thresholds and prior from the data."""
