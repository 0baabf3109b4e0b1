"""`devide`: zero-shot like `kad`, asked with a description of each finding.

DeViDe is of KAD's lineage (same decoder, a ViT, descriptions instead of names); it has published
neither code nor weights, so this is a reading: KAD's decoder, descriptive prompts.
"""

from dwarf_cxr.config import MethodSettings, ModelSettings
from dwarf_cxr.methods.method import Method

METHOD = Method(
    name="devide",
    summary="zero-shot: imported weights asked with descriptions (our reading of DeViDe)",
    supervision="none (needs --init)",
    settings=MethodSettings(
        model=ModelSettings(
            head="none", map_space="relative", query_context="joint", prompts="description"
        )
    ),
    zero_shot=True,
)
