"""Chest X-ray classifiers that look where a clinician looks.

The names below are loaded when they are first used, so that `import dwarf_cxr` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwarf_cxr.data.prepare import prepare
    from dwarf_cxr.data.sources import read_source
    from dwarf_cxr.data.store import PreparedData
    from dwarf_cxr.errors import DwarfError
    from dwarf_cxr.evaluation.evaluate import evaluate
    from dwarf_cxr.models.checkpoint import load_model, save_model
    from dwarf_cxr.prediction import predict
    from dwarf_cxr.reporting.page import compare
    from dwarf_cxr.training.run import start_training

__version__ = "0.1.0"

_HOMES = {
    "DwarfError": "dwarf_cxr.errors",
    "PreparedData": "dwarf_cxr.data.store",
    "compare": "dwarf_cxr.reporting.page",
    "evaluate": "dwarf_cxr.evaluation.evaluate",
    "load_model": "dwarf_cxr.models.checkpoint",
    "predict": "dwarf_cxr.prediction",
    "prepare": "dwarf_cxr.data.prepare",
    "read_source": "dwarf_cxr.data.sources",
    "save_model": "dwarf_cxr.models.checkpoint",
    "start_training": "dwarf_cxr.training.run",
}

__all__ = [
    "DwarfError",
    "PreparedData",
    "compare",
    "evaluate",
    "load_model",
    "predict",
    "prepare",
    "read_source",
    "save_model",
    "start_training",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dwarf_cxr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
