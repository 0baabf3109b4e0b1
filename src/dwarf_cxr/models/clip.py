"""CLIP and SigLIP as zero-shot classifiers: is a film nearer to a finding or to its absence?

Every finding is put into two sentences, one that it is there and one that it is not. The score
compares the film with both, the map does so for every patch. This is the protocol of CheXzero
(softmax over "{finding}" and "no {finding}") and, for the map, the similarity map that XBench
(arXiv 2510.19599) judges.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.findings import select
from dwarf_cxr.models.normalisation import GreyToChannels, Normalisation
from dwarf_cxr.models.outputs import MapDomain, ModelCard, Origin, Outputs, Prediction
from dwarf_cxr.models.predicting import predict_in_batches
from dwarf_cxr.models.vision_transformer import square_grid

ClipMap = Literal["difference", "positive"]

PLACE = "{finding}"
TOKENIZER_FOLDER = "tokenizer"
"""Where a model folder keeps its tokeniser."""


@dataclass(frozen=True)
class ClipSettings:
    """How the model is asked, and what its map is."""

    positive: str = "{finding}"
    negative: str = "no {finding}"
    maps: ClipMap = "difference"
    """`difference`: nearness to the positive minus nearness to the negative sentence; `positive`:
    nearness to the positive one alone."""

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            if PLACE not in getattr(self, name):
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}: a template needs {PLACE} where the "
                    "finding's words go, for example 'no {finding}'"
                )


class ClipClassifier(nn.Module):
    """A CLIP or SigLIP model asked for findings in words; nothing in it is trained here.

    With the cosines c⁺, c⁻ of the film's embedding with the two sentences and the model's own
    scale s, the log-odds of a finding are s·(c⁺ - c⁻): the softmax over both sentences. For SigLIP,
    whose logits are s·c + b and go through a sigmoid each, this is the same comparison: b cancels.
    (Its sigmoid alone says how well a caption fits, not how likely the finding is.)

    A map value compares the patch with the sentences in the same way, (2 + c⁺ - c⁻) / 4, or with
    `maps="positive"` (1 + c⁺) / 2: in [0, 1] without saturation, .5 where the patch is as near to
    one as to the other. The patch's embedding is what the film's would be, were its pool the patch
    alone: CLIP's last norm and projection, SigLIP's pooling head on one token.
    """

    def __init__(
        self,
        clip: Any,
        tokenizer: Any,
        settings: ClipSettings,
        findings: Sequence[str],
        prompt_features: Float[Tensor, "finding 2 d"],
        image_size: int,
        normalisation: Normalisation,
    ) -> None:
        """`clip` is transformers' CLIPModel or SiglipModel, `tokenizer` its tokeniser.

        Raises:
            ConfigError: the patches do not fill an image of `image_size`.
        """
        super().__init__()
        self.clip: Any = clip
        self.tokenizer = tokenizer
        self.settings = settings
        self.findings = tuple(findings)
        self.image_size = image_size
        self.card: ModelCard | None = None
        self.origin: Origin | None = None
        vision = self.clip.config.vision_config
        self.grid = square_grid(image_size, vision.patch_size)
        self.normalisation = normalisation
        self.pixels = GreyToChannels(normalisation, vision.num_channels)
        self.prompt_features: Tensor
        self.register_buffer("prompt_features", prompt_features.clone())

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        prompts: Float[Tensor, "finding 2 d"] | None = None,
    ) -> Prediction:
        """Log-odds (B, C) and unit maps (B, C, h, w) of grey images in [0, 1].

        Args:
            prompts: of each finding asked, the features of its two sentences; default the stored.
        """
        prompts = self.prompt_features if prompts is None else prompts
        film, patches = self.embed(images)
        odds = _difference(film[:, None], prompts)[:, 0]
        if self.settings.maps == "positive":
            maps = (1 + patches @ prompts[:, 0].T) / 2
        else:
            maps = (2 + _difference(patches, prompts)) / 4
        logits = self.clip.logit_scale.exp() * odds
        return Prediction(logits, maps.mT.unflatten(-1, self.grid).clamp(0, 1), "unit", {})

    def embed(
        self, images: Float[Tensor, "batch height width"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch n d"]]:
        """Embeddings of length 1 of films and of their patches, in row-major order."""
        tower = self.clip.vision_model
        said = tower(self.pixels(images), interpolate_pos_encoding=True)
        patches = said.last_hidden_state[:, -self.grid[0] * self.grid[1] :]
        if self.clip.config.model_type == "clip":
            film = self.clip.visual_projection(said.pooler_output)
            patches = self.clip.visual_projection(tower.post_layernorm(patches))
        else:
            film = said.pooler_output
            patches = tower.head(patches.flatten(0, 1)[:, None]).unflatten(0, patches.shape[:2])
        return F.normalize(film, dim=-1), F.normalize(patches, dim=-1)

    @property
    def query_context(self) -> str:
        """A finding's score does not depend on the others asked."""
        return "isolated"

    @property
    def map_domain(self) -> MapDomain:
        """The domain of `forward`'s maps."""
        return "unit"

    @torch.inference_mode()
    def predict(
        self,
        pixels: np.ndarray,
        findings: Sequence[str] | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> Outputs:
        """Probabilities and maps for uint8 `pixels` (B, image_size, image_size).

        `prompts` maps a finding to the words that stand for it in both sentences.

        Raises:
            ConfigError: a finding the model is not asked for.
        """
        names = select(
            self.findings if findings is None else findings, self.findings, where="predict"
        )
        other = prompts or {}
        if other:
            select(list(other), self.findings, where="prompts")
        features = self.features_of([other.get(name, name) for name in names])
        return predict_in_batches(
            self, lambda images: self(images, features), pixels, len(names), self.grid
        )

    def asking(self, words: Mapping[str, str]) -> "ClipClassifier":
        """The same network, weights shared, asked for other findings.

        Args:
            words: of each finding to ask for, the words that stand for it in both sentences; those
                of a finding that the model knows stand for its stored sentences.
        """
        other = copy.copy(self)
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        other.findings, other.card = tuple(words), None
        other.prompt_features = self.features_of(list(words.values()))
        return other

    def features_of(self, words: Sequence[str]) -> Float[Tensor, "finding 2 d"]:
        """Features of the sentences: a known finding's stored ones, all else encoded."""
        new = [one for one in words if one not in self.findings]
        encoded = iter(encode_sentences(self.clip, self.tokenizer, self.settings, new))
        return torch.stack(
            [
                self.prompt_features[self.findings.index(one)]
                if one in self.findings
                else next(encoded)
                for one in words
            ]
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write the model folder (`models/checkpoint.py`, `save_model`)."""
        from dwarf_cxr.models.checkpoint import save_model

        save_model(self, Path(folder))

    def architecture(self) -> dict[str, Any]:
        """What `clip_from` needs to build the same network without its weights."""
        return {
            "settings": asdict(self.settings),
            "clip": self.clip.config.to_diff_dict(),
            "normalisation": self.normalisation.describe(),
            "findings": list(self.findings),
            "feature_width": self.prompt_features.shape[-1],
            "image_size": self.image_size,
        }


def clip_from(architecture: Mapping[str, Any], tokenizer: Any) -> ClipClassifier:
    """The network that `architecture` recorded, without weights."""
    from transformers import AutoConfig, AutoModel

    values = dict(architecture["clip"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    findings = architecture["findings"]
    return ClipClassifier(
        AutoModel.from_config(config, dtype=torch.float32),
        tokenizer,
        ClipSettings(**architecture["settings"]),
        findings,
        torch.zeros(len(findings), 2, architecture["feature_width"]),
        architecture["image_size"],
        Normalisation.of(architecture["normalisation"]),
    )


@torch.no_grad()
def encode_sentences(
    clip: Any, tokenizer: Any, settings: ClipSettings, words: Sequence[str]
) -> Float[Tensor, "finding 2 d"]:
    """Features of length 1 of both sentences of every one of `words`.

    Words are lower-cased, as the text of both families is in their training.

    Raises:
        ConfigError: a sentence is too long, or both of a finding are the same to the tokeniser.
        CheckpointError: the tokeniser knows no word of a sentence.
    """
    device, width = clip.logit_scale.device, clip.config.text_config.max_position_embeddings
    if not words:
        return torch.zeros(0, 2, 1, device=device)
    sentences = [
        template.replace(PLACE, one.lower())
        for one in words
        for template in (settings.positive, settings.negative)
    ]
    _refuse_unreadable(tokenizer, sentences, width)
    if clip.config.model_type == "clip":
        batch = tokenizer(sentences, padding=True, return_tensors="pt").to(device)
        text = clip.text_model(batch["input_ids"], attention_mask=batch["attention_mask"])
        features = clip.text_projection(text.pooler_output)
    else:
        # SigLIP reads its last place, filled up or not, and sees the filling, as in its training
        batch = tokenizer(sentences, padding="max_length", max_length=width, return_tensors="pt")
        features = clip.text_model(batch["input_ids"].to(device)).pooler_output
    return F.normalize(features, dim=-1).unflatten(0, (len(words), 2))


def _refuse_unreadable(tokenizer: Any, sentences: Sequence[str], width: int) -> None:
    numbers = tokenizer(list(sentences))["input_ids"]
    for sentence, ids in zip(sentences, numbers, strict=True):
        if len(ids) > width:
            raise ConfigError(
                f"{sentence!r} is {len(ids)} tokens long, this model reads {width}; shorten it"
            )
        if not set(ids) - set(tokenizer.all_special_ids):
            raise CheckpointError(
                f"the model's tokeniser knows no word of {sentence!r}; is its vocabulary complete?"
            )
    for index in range(0, len(sentences), 2):
        if numbers[index] == numbers[index + 1]:
            raise ConfigError(
                f"{sentences[index]!r} and {sentences[index + 1]!r} are the same to the model's "
                "tokeniser; choose other templates"
            )


def _difference(
    embedded: Float[Tensor, "batch n d"], prompts: Float[Tensor, "finding 2 d"]
) -> Float[Tensor, "batch n finding"]:
    """Cosine with the positive minus cosine with the negative sentence, in [-2, 2]."""
    return embedded @ (prompts[:, 0] - prompts[:, 1]).T
