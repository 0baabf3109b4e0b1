"""Opening checkpoints of other projects: as data, never as a program unless the user says so."""

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.files import sha256_of

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key, in any combination."""
SAVED_BY_TORCH = (b"PK", b"\x80")
"""How its files begin: a zip, or, before torch 1.6, a pickle."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights of a folder in Hugging Face layout, the first that is there."""


@dataclass(frozen=True)
class ForeignFile:
    """A checkpoint as it was found, before anything is made of it."""

    file: Path
    sha256: str
    content: Mapping[str, Any]
    """Top level: sections of a training checkpoint, or tensors by key."""
    notes: tuple[str, ...]

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors of one section, without `PREFIXES`.

        Raises:
            CheckpointError: no such section, or it holds no tensors; says what the file looks like.
        """
        found = self.content.get(name)
        if not isinstance(found, Mapping):
            raise CheckpointError(
                f"{self.file}: section {name!r} is missing; {looks_like(self.content)}"
            )
        return tensors_of(found, f"{self.file}, section {name!r}")


def open_foreign(path: Path, *, trust: bool) -> ForeignFile:
    """Read a checkpoint: safetensors, or what `torch.save` wrote.

    A pickle is a program. It is read with torch's restricted unpickler, which knows tensors and
    plain containers; with `trust` a file that needs more is unpickled in full, and a note says so.
    The checksums inside a zip are compared, since torch itself does not look at them.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, or refused by the unpickler.
    """
    path = Path(path)
    if path.is_dir():
        inside = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
        if inside is None:
            raise CheckpointError(
                f"{path}: no weights there ({' or '.join(WEIGHT_FILES)}); give a folder in Hugging "
                "Face layout, or the checkpoint file itself"
            )
        path = inside
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    _refuse_other_files(path)
    if path.suffix == ".safetensors":
        return ForeignFile(path, sha256_of(path), _read_safetensors(path), ())
    if _is_zip(path):
        _check_zip(path)
    content, notes = _read_pickle(path, trust)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a dictionary of weights; give the "
            "checkpoint that the training wrote"
        )
    return ForeignFile(path, sha256_of(path), content, notes)


def tensors_of(section: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a mapping by their bare keys.

    Raises:
        CheckpointError: there are none, other values are among them, or two keys become one.
    """
    tensors = {bare_key(key): value for key, value in section.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{where}: holds no tensors; {looks_like(section)}")
    others = [str(key) for key, value in section.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{where}: not tensors: {', '.join(sorted(others))}")
    if len(tensors) != len(section):
        raise CheckpointError(f"{where}: keys with and without {' or '.join(PREFIXES)} are mixed")
    return tensors


def bare_key(key: str) -> str:
    """`key` without the wrappers' prefixes."""
    key = str(key)
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key


def looks_like(content: Mapping[Any, Any]) -> str:
    """What a file seems to be, from its keys: the hint of every refusal."""
    sections = {str(key) for key in content}
    if {"model", "image_encoder", "text_encoder"} <= sections:
        return "it looks like a KAD checkpoint: use 'kad'"
    inner = content.get("model", content.get("state_dict", content))
    keys = {bare_key(key) for key in inner} if isinstance(inner, Mapping) else set()
    if any(key.startswith("disease_embedding_layer.") for key in keys):
        return "it looks like a MedKLIP checkpoint: use 'medklip'"
    if any(key.startswith("bert_model.") for key in keys) or any(
        "embeddings.word_embeddings" in key for key in keys
    ):
        return "it looks like a BERT, perhaps KEBERT: use 'med-kebert'"
    if any("cls_token" in key or "class_token" in key for key in keys):
        return "it looks like a ViT: use 'vit'"
    shown = ", ".join(sorted(sections)[:8])
    return f"its keys are {shown}{', …' if len(sections) > 8 else ''}"


def _refuse_other_files(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(256).lstrip()
    if not start:
        raise CheckpointError(f"{path}: the file is empty; download or copy it again")
    if start[:1] == b"<" or start[:9].lower() == b"<!doctype":
        raise CheckpointError(
            f"{path}: this is a web page (HTML), not a checkpoint; open the link in a browser and "
            "download the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull'")
    if path.suffix != ".safetensors" and not start.startswith(SAVED_BY_TORCH):
        raise CheckpointError(
            f"{path}: damaged or no checkpoint: torch.save writes no file that begins with "
            f"{start[:12]!r}; give the checkpoint itself, or download it again"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as fault:
        raise CheckpointError(
            f"{path}: damaged or not safetensors ({fault}); download or copy it again"
        ) from None


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile as fault:  # it has the end of one, which makes no sense
        raise CheckpointError(f"{path}: damaged ({fault}); download or copy it again") from None


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as fault:  # beside its own, zipfile lets those of the decompressors through
        raise CheckpointError(f"{path}: damaged ({fault}); download or copy it again") from None
    if damaged is not None:
        raise CheckpointError(
            f"{path}: damaged: the checksum of {damaged} is wrong; download or copy it again"
        )


def _read_pickle(path: Path, trust: bool) -> tuple[Any, tuple[str, ...]]:
    mapped = _is_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), ()
    except Exception as fault:  # a damaged pickle raises whatever its last opcode led to
        reason = _first_line(fault)
        needs_trust = "weights_only" in str(fault) or "WeightsUnpickler" in str(fault)
    if not trust:
        raise CheckpointError(
            f"{path}: refused: {reason} "
            + (
                "It is damaged, or holds more than tensors. Only a full unpickling reads that, "
                "which can run any program: add --trust if you know where the file comes from."
                if needs_trust
                else "It is damaged or no checkpoint: download or copy it again."
            )
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, mmap=mapped)
    except Exception as fault:
        raise CheckpointError(
            f"{path}: cannot be unpickled, even with --trust: {_first_line(fault)} It is damaged "
            "or no checkpoint: download or copy it again"
        ) from None
    return content, (f"unpickled in full on --trust, since: {reason}",)


def _first_line(fault: Exception) -> str:
    """What torch says of the cause, without its advice to load the file regardless."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    telling = [line for line in lines if "WeightsUnpickler error" in line or "GLOBAL" in line]
    text = (telling or lines or [type(fault).__name__])[0]
    text = text.split(" Please use", 1)[0].split(" (1) ", 1)[0]
    return text if text.endswith(("?", "!")) else text.rstrip(".") + "."
