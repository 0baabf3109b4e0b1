"""From imported parts to a model folder."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.models.outputs import Origin
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.weights.report import Report


def place_model(
    folder: Path,
    settings: ModelSettings,
    image_encoder: nn.Module,
    prompts: Mapping[str, str],
    features: Tensor,
    image_size: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    report: Report,
) -> None:
    """Put the model's files into `folder`, beside what it already holds.

    Args:
        prompts: finding to the words it is asked with, which `features` encodes row by row.
        parts: the states of `decoder`, `score` and, where there is one, `text_projection`.
    """
    model = VisionLanguageClassifier(
        settings, image_encoder, list(prompts), features, image_size, torch.Generator()
    )
    for name, state in parts.items():
        model.get_submodule(name).load_state_dict(state)
    asked = ", ".join(f"{name} = {words!r}" for name, words in prompts.items())
    model.origin = Origin(
        family=report.family,
        file=report.foreign.file.name,
        sha256=report.foreign.sha256,
        notes=(*report.origin_notes(), f"prompts: {asked}"),
    )
    save_model(model.eval(), folder / "model")
    for file in sorted((folder / "model").iterdir()):
        os.replace(file, folder / file.name)
    (folder / "model").rmdir()
