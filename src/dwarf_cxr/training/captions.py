"""What films' reports say, as vectors of the frozen text encoder, computed once per training."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.models.text_encoders import encode_prompts
from dwarf_cxr.objectives.contrastive import NO_TEXT


@dataclass(frozen=True)
class Captions:
    """The texts of the films of a data set; films of the same text share its vector."""

    texts: Int64[Tensor, "image"]
    """Row of `vectors`; -1 where the film has no text."""
    vectors: Float[Tensor, "text d"]

    @classmethod
    def of(cls, data: PreparedData, indices: np.ndarray, text_encoder: str) -> "Captions":
        """The texts of the films `indices`; all others are taken as without.

        Raises:
            DataError: none of the films has a text.
            DwarfError: as `encode_prompts`.
        """
        said = {int(index): text for index in indices if (text := data.texts[index])}
        if not said:
            raise DataError(
                f"{data.folder}: no training image has a text, from which image-text contrast "
                "learns; prepare a data set with reports (openi, covid, synthetic, or a `text` "
                "column of csv), or set contrastive_weight=0"
            )
        # of one length together: padding costs as much as words
        distinct = sorted(set(said.values()), key=lambda text: (len(text), text))
        row = {text: number for number, text in enumerate(distinct)}
        texts = torch.full((len(data.texts),), NO_TEXT, dtype=torch.int64)
        for index, text in said.items():
            texts[index] = row[text]
        return cls(texts, encode_prompts(text_encoder, distinct))

    def features(self, texts: Int64[Tensor, "batch"]) -> Float[Tensor, "batch d"]:
        """The text encoder's vector of each film's text; of a film without one, zeros."""
        return self.vectors[texts.clamp(min=0)] * (texts != NO_TEXT)[:, None]
