"""`kad`: zero-shot, KAD's query decoder asked by the findings' names, all at once.

Its map is the last layer's cross-attention, averaged over heads.
"""

from dwarf_cxr.config import MethodSettings, ModelSettings
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="kad",
    summary="zero-shot: imported weights asked by name, all findings jointly (KAD)",
    supervision="none (needs --init)",
    settings=MethodSettings(
        model=ModelSettings(
            head="none", map_space="relative", query_context="joint", prompts="name"
        )
    ),
    zero_shot=True,
)
