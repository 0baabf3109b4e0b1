"""A trained model, wherever it is kept: a run, a bare model folder, or an exported file."""

from pathlib import Path

from dwarf_cxr.models.checkpoint import Model, load_model, model_folder
from dwarf_cxr.models.onnx_classifier import SUFFIX, OnnxClassifier, open_onnx


def open_model(run: Path) -> Model | OnnxClassifier:
    """The model of a run, of a bare model folder, or of an ONNX file.

    Raises:
        CheckpointError: no model there, or damaged.
        ConfigError: an ONNX file without ONNX Runtime.
    """
    return open_onnx(run) if is_exported(run) else load_model(run)


def weights_file(run: Path) -> Path:
    """The file whose SHA-256 says which model it is."""
    return run if is_exported(run) else model_folder(run) / "model.safetensors"


def evaluation_folder(run: Path, split: str) -> Path:
    """Where `dwarf evaluate` writes unless told otherwise: in a run, beside an ONNX file."""
    if is_exported(run):
        return run.with_name(f"{run.name.removesuffix(SUFFIX)}-eval-{split}")
    return run / f"eval-{split}"


def is_exported(run: Path) -> bool:
    """Whether it is an ONNX file, by its name."""
    return run.suffix == SUFFIX and not run.is_dir()
