"""Which keys of a foreign section were used, dropped or wrong: nothing is lost in silence."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dwarf_cxr.errors import CheckpointError

SHOWN = 60
"""Faults that an error lists in full."""


class KeyReader:
    """Hands out the tensors of one section and remembers every key that does not fit.

    `take` never raises, so that one error can list all that is wrong; `refuse_faults` raises it.
    """

    def __init__(self, section: str, tensors: Mapping[str, Tensor]) -> None:
        self.section = section
        self.tensors = dict(tensors)
        self.faults: list[str] = []
        self.dropped: list[str] = []
        """What was left out on purpose, in words."""
        self.aliases: list[str] = []
        """What was stored twice and found equal, in words."""

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def left(self) -> list[str]:
        """Keys neither taken nor dropped yet."""
        return list(self.tensors)

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of a key, None where it is missing."""
        return tuple(self.tensors[key].shape) if key in self.tensors else None

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """The tensor of `key` as float32 of its own; zeros where it is missing or mis-shaped."""
        shape = tuple(shape)
        found = self.tensors.pop(key, None)
        if found is None:
            self.faults.append(f"missing {key} {shape}")
        elif tuple(found.shape) != shape:
            self.faults.append(f"{key} is {tuple(found.shape)}, expected {shape}")
        elif not found.is_floating_point():
            self.faults.append(f"{key} holds {found.dtype}, expected floating point")
        elif not torch.isfinite(found).all():
            self.faults.append(f"{key} holds NaN or infinity")
        else:
            return found.detach().to(torch.float32, copy=True).contiguous()
        return torch.zeros(1).expand(shape)

    def take_linear(self, name: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        """`weight` and `bias` of a linear layer."""
        return {
            "weight": self.take(f"{name}.weight", (outputs, inputs)),
            "bias": self.take(f"{name}.bias", (outputs,)),
        }

    def take_norm(self, name: str, width: int) -> dict[str, Tensor]:
        """`weight` and `bias` of a LayerNorm."""
        return {part: self.take(f"{name}.{part}", (width,)) for part in ("weight", "bias")}

    def merge_alias(self, second: str, first: str) -> None:
        """Keys that begin with `second` are the same tensors as those that begin with `first`.

        Equal twins become one; a tensor that is stored under one of its names only is kept.
        """
        twins = [key for key in self.tensors if key.startswith(second)]
        compared = 0
        for key in twins:
            other = first + key[len(second) :]
            tensor = self.tensors.pop(key)
            if other not in self.tensors:
                self.tensors[other] = tensor
            elif self.tensors[other].shape != tensor.shape:
                self.faults.append(
                    f"{key} is {tuple(tensor.shape)}, its alias {other} is "
                    f"{tuple(self.tensors[other].shape)}"
                )
            elif not torch.equal(self.tensors[other], tensor):
                self.faults.append(f"{key} and its alias {other} differ")
            else:
                compared += 1
        if compared:
            self.aliases.append(f"{self.section}: {second}* equals {first}* ({compared} tensors)")

    def drop(self, pattern: str, why: str) -> None:
        """Leave out every key that matches `pattern` (as in a shell) and say so."""
        found = [key for key in self.tensors if fnmatch.fnmatchcase(key, pattern)]
        for key in found:
            del self.tensors[key]
        if found:
            count = "" if len(found) == 1 else f" ({len(found)} tensors)"
            self.dropped.append(f"{self.section}: {pattern}{count}: {why}")

    def all_faults(self) -> list[str]:
        """Missing, mis-shaped, unequal, and every key that nobody asked for."""
        shown = [
            *self.faults,
            *(f"unexpected {key} {tuple(value.shape)}" for key, value in self.tensors.items()),
        ]
        return [f"{self.section}: {fault}" for fault in shown]


def refuse_faults(file: Path, readers: Iterable[KeyReader], hint: str = "") -> None:
    """Raise one error that lists all that does not fit in any section.

    Raises:
        CheckpointError: a key is missing, unexpected, mis-shaped or unlike its alias.
    """
    faults = [fault for reader in readers for fault in reader.all_faults()]
    if not faults:
        return
    listed = "; ".join(sorted(faults)[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    raise CheckpointError(
        f"{file}: {len(faults)} keys do not fit: {listed}{more}{'; ' + hint if hint else ''}"
    )
