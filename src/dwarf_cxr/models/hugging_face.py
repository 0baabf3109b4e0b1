"""Models in Hugging Face layout: a local folder, or a name on the hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dwarf_cxr.errors import CheckpointError, ConfigError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""`org/name`, as the hub spells it."""
SETTINGS_AND_WORDS = ("*.json", "vocab.txt", "merges.txt", "*.model")
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""In the order in which they are preferred."""


def find_folder(setting: str, name: str) -> Path:
    """The folder that `name` is, or the local copy of the hub's model `org/name`.

    The hub is asked only where `name` is no folder and the local cache lacks the model; nothing
    else here uses the network.

    Args:
        setting: what the user set to `name`, for the message.

    Raises:
        ConfigError: no such folder, and no such model within reach.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigError(
            f"{setting} = {name}: is a file; give the folder that it lies in, in Hugging Face "
            "layout (config.json and tokeniser beside the weights), or a name on the hub (org/name)"
        )
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(
            f"{setting} = {name}: no such folder; give a folder in Hugging Face layout "
            "(config.json, weights) or a name on the hub (org/name)"
        )
    cached = _cached(name)
    return _downloaded(setting, name) if cached is None else cached


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    needed = ["config.json", WEIGHTS[0]]  # a download that broke off between shards is refused
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=needed))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _downloaded(setting: str, name: str) -> Path:
    from huggingface_hub import snapshot_download

    reason = f"there is no config.json with {' or '.join(WEIGHTS)}"
    for weights in WEIGHTS:
        try:
            folder = Path(snapshot_download(name, allow_patterns=[*SETTINGS_AND_WORDS, weights]))
        except Exception as fault:  # no network, no such model, no access: the client's own kinds
            reason = str(fault).strip().splitlines()[0] if str(fault).strip() else repr(fault)
            break
        if _is_whole(folder):
            return folder
    raise ConfigError(
        f"{setting} = {name}: no such folder, not in the local Hugging Face cache, and the hub "
        f"cannot give it ({reason}); give a folder, or run 'hf download {name}' (older: "
        "'huggingface-cli download') where there is a network"
    )


def _is_whole(folder: Path) -> bool:
    weights = any(True for pattern in WEIGHTS for _ in folder.glob(pattern))
    return weights and (folder / "config.json").is_file()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' load report and bars; what matters of them is raised instead."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def load_tokenizer(where: str, folder: Path) -> Any:
    """The tokeniser of a folder.

    Args:
        where: what names the folder, for the message.

    Raises:
        ConfigError: it needs a package that is not installed.
        CheckpointError: the folder has none, or a damaged one.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as fault:
        raise ConfigError(
            f"{where}: its tokeniser needs another package ({fault}); SigLIP's first version needs "
            "'pip install sentencepiece'"
        ) from None
    except Exception as fault:  # the tokenizers library raises plain Exception on damaged files
        raise CheckpointError(f"{where}: its tokeniser cannot be read: {fault}") from None
