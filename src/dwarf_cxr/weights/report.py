"""What an import found, kept and left out: printed, and kept with what was written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.weights.keys import KeyReader
from dwarf_cxr.weights.reading import ForeignFile


@dataclass(frozen=True)
class Report:
    """One import."""

    family: str
    variant: str
    foreign: ForeignFile
    out: Path
    aliases: tuple[str, ...]
    """Tensors stored twice and found equal."""
    dropped: tuple[str, ...]
    """Tensors and sections left out, each with its reason."""
    notes: tuple[str, ...]
    """What was assumed, and what differs from the original."""
    next_step: str
    """A command that uses the result."""

    def origin_notes(self) -> tuple[str, ...]:
        """All that is worth keeping beside the weights."""
        return (
            f"variant: {self.variant}",
            *(f"stored twice, equal: {line}" for line in self.aliases),
            *(f"left out: {line}" for line in self.dropped),
            *self.notes,
        )

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            f"{self.out}: {self.family}, from {self.foreign.file}",
            f"SHA-256 {self.foreign.sha256}",
            *self.origin_notes(),
            f"next: {self.next_step}",
        ]

    def text(self) -> str:
        """README.md of a folder of encoder weights."""
        kept = "\n".join(f"- {line}" for line in self.origin_notes())
        return (
            f"# {self.family}, imported\n\nFrom `{self.foreign.file.name}`, SHA-256 "
            f"`{self.foreign.sha256}`, by `dwarf weights import`. Its licence is that of the "
            f"original.\n\n{kept}\n"
        )


def collected(
    readers: Sequence[KeyReader], foreign: ForeignFile, sections: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Aliases and dropped parts of all readers; other sections of the file count as dropped."""
    others = sorted(str(name) for name in foreign.content if name not in sections)
    dropped = [line for reader in readers for line in reader.dropped]
    if sections and others:
        dropped.append(f"sections {', '.join(others)}: of the training")
    return tuple(line for reader in readers for line in reader.aliases), tuple(dropped)


def refuse_occupied(out: Path) -> None:
    """Nothing that is already there may be replaced.

    Raises:
        CheckpointError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(
            f"--out {out}: there is something already; give another folder, or remove it first"
        )
