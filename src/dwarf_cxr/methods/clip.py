"""`clip`: zero-shot, CLIP or SigLIP asked whether a film is nearer to a finding or to its absence.

Its map compares every patch with the same two sentences (`models/clip.py`).
"""

from dwarf_cxr.config import MethodSettings, ModelSettings
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="clip",
    summary="zero-shot: an imported CLIP or SigLIP, finding against no finding",
    supervision="none (needs --init)",
    settings=MethodSettings(model=ModelSettings(head="none", prompts="name")),
    zero_shot=True,
)
