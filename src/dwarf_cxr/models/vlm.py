"""The vision-language classifier: encoders, query decoder and disease heads put together."""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.findings import DESCRIPTIONS, select
from dwarf_cxr.models.decoder import QueryDecoder
from dwarf_cxr.models.heads import PriorEvidenceHead, build_heads, refine, to_map, to_map_space
from dwarf_cxr.models.image_encoders import build_image_encoder
from dwarf_cxr.models.outputs import MapDomain, ModelCard, Origin, Outputs, Prediction
from dwarf_cxr.models.predicting import asked_findings, predict_in_batches
from dwarf_cxr.models.text_encoders import encode_prompts

LOG_SCALE_START = math.log(1 / 0.07)
"""CLIP's temperature of .07, by which similarities of image and text are divided at the start."""


class VisionLanguageClassifier(nn.Module):
    """Asks each finding's prompt of a radiograph: is it there, and where?

    Image tokens and prompt vectors are projected to one width; the decoder lets each prompt attend
    to the tokens; a linear layer scores the decoded prompt; the finding's head refines its
    attention map. The maps' grid is the encoder's for images of `image_size`.
    """

    def __init__(
        self,
        settings: ModelSettings,
        image_encoder: nn.Module,
        findings: Sequence[str],
        prompt_features: Float[Tensor, "finding text"],
        image_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.findings = tuple(findings)
        self.image_size = image_size
        self.card: ModelCard | None = None
        self.origin: Origin | None = None
        self.image_encoder = image_encoder
        self.grid: tuple[int, int] = image_encoder.grid(image_size)  # type: ignore[operator]
        self.prompt_features: Tensor
        self.register_buffer("prompt_features", prompt_features.clone())
        self.image_projection = _projection(
            image_encoder.width,  # type: ignore[arg-type]
            settings.width,
            wanted=settings.projections == "both",
        )
        self.text_projection = _projection(
            prompt_features.shape[1], settings.width, wanted=settings.projections != "none"
        )
        self.positions = (
            nn.Parameter(torch.zeros(self.grid[0] * self.grid[1], settings.width))
            if settings.positions
            else None
        )
        self.decoder = QueryDecoder(
            settings.width,
            settings.layers,
            settings.attention_heads,
            settings.feedforward,
            settings.dropout,
            settings.norm_inputs,
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.score = nn.Linear(settings.width, 1)
        self.heads = build_heads(settings.head, len(self.findings), self.grid, generator)
        self.log_scale = (
            nn.Parameter(torch.tensor(LOG_SCALE_START)) if settings.contrastive else None
        )
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        fresh = (self.image_projection, self.text_projection, self.decoder, self.score)
        for module in (part for root in fresh for part in root.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.02, generator=generator)

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int] | None = None,
        prompts: Float[Tensor, "query text"] | None = None,
    ) -> Prediction:
        """Scores and maps of `findings` (indices into `self.findings`; default all).

        `prompts` asks with other words than the stored ones, one vector per finding. In the
        `joint` query context all of the model's findings are in the room whichever are returned,
        since scores, maps and fitted thresholds would otherwise change with the others asked for.

        Args:
            images: grey in [0, 1].

        Returns:
            Logits (B, C), maps (B, C, h, w); extras "attention" (B, C, h, w), the raw simplex, and
            for `dwarf-prior` "prior" (C, h, w) and "evidence" (B, C, h, w), both in [0, 1]; with
            `contrastive` also "image_vector" (B, width) of length 1, the mean projected token.
        """
        asked = list(range(len(self.findings)) if findings is None else findings)
        text = self.prompt_features[asked] if prompts is None else prompts
        context = self.settings.query_context
        if context == "joint":
            everything = self.prompt_features.clone()
            everything[asked] = text
            text = everything
        projected = self.image_projection(self.image_encoder(images))
        tokens = projected if self.positions is None else projected + self.positions
        decoded, attention, scores = self.decoder(
            self.text_projection(text), tokens, context, self.settings.map_layers
        )
        if context == "joint":
            decoded, attention, scores = (part[:, asked] for part in (decoded, attention, scores))
        logits = self.score(self.dropout(decoded)).squeeze(-1)
        space = self.settings.map_space
        raw = to_map_space(attention, scores, space)
        heads = [self.heads[index] for index in asked]
        refined = refine(heads, raw)
        extras = {"attention": attention.unflatten(-1, self.grid)}
        if self.settings.contrastive:
            extras["image_vector"] = F.normalize(projected.mean(dim=1), dim=-1)
        if all(isinstance(head, PriorEvidenceHead) for head in heads):
            evidence = [head.evidence(raw[:, row]) for row, head in enumerate(heads)]  # type: ignore[operator]
            extras["evidence"] = torch.stack(evidence, dim=1).sigmoid().unflatten(-1, self.grid)
            priors = torch.stack([head.prior_logit for head in heads])  # type: ignore[misc]
            extras["prior"] = priors.sigmoid().unflatten(-1, self.grid)
        maps = to_map(refined, space).unflatten(-1, self.grid)
        return Prediction(logits, maps, self.map_domain, extras)

    @property
    def query_context(self) -> str:
        """Whether a finding's score depends on the others asked."""
        return self.settings.query_context

    @property
    def map_domain(self) -> MapDomain:
        """The domain of `forward`'s maps."""
        return "simplex" if self.settings.map_space == "probability" else "unit"

    def undecayed(self) -> list[nn.Parameter]:
        """Weights that no decay may pull towards zero: an identity is not zero."""
        return list(self.heads.parameters())

    def asking(self, words: Mapping[str, str]) -> "VisionLanguageClassifier":
        """The same network, weights shared, asked for other findings (zero-shot).

        Args:
            words: of each finding to ask for, the words it is asked with; those of a finding that
                the model knows stand for its stored prompt.

        Raises:
            ConfigError: the model has disease heads, which are their findings' own.
        """
        if self.settings.head != "none":
            raise ConfigError(
                f"a model with heads ({self.settings.head}) knows its own findings only "
                f"({', '.join(self.findings)}); zero-shot needs one without"
            )
        other = copy.copy(self)
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        other.findings, other.card = tuple(words), None
        other.prompt_features = self.features_of(list(words.values()))
        other.heads = nn.ModuleList(nn.Identity() for _ in words)
        return other

    def asked_by(self, settings: ModelSettings) -> "VisionLanguageClassifier":
        """The same network, weights shared, with the context, map and prompts of `settings`."""
        chosen = ("query_context", "map_space", "map_layers", "prompts")
        other = copy.copy(self)
        other.settings = self.settings.model_copy(
            update={name: getattr(settings, name) for name in chosen}
        )
        return other

    def features_of(self, words: Sequence[str]) -> Float[Tensor, "prompt text"]:
        """Prompt features: a known finding's stored ones, all else encoded."""
        new = [one for one in words if one not in self.findings]
        encoded = iter(self._encoded(new) if new else ())
        rows = [
            self.prompt_features[self.findings.index(one)]
            if one in self.findings
            else next(encoded).to(self.prompt_features)
            for one in words
        ]
        return torch.stack(rows)

    def text_vectors(self, features: Float[Tensor, "text d"]) -> Float[Tensor, "text width"]:
        """Vectors of length 1, to compare with `image_vector`, of a text encoder's `features`."""
        return F.normalize(self.text_projection(features), dim=-1)

    @torch.inference_mode()
    def predict(
        self,
        pixels: np.ndarray,
        findings: Sequence[str] | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> Outputs:
        """Probabilities and unit-domain maps for uint8 `pixels` (B, image_size, image_size).

        `prompts` maps a finding to the words it is asked with instead of its stored prompt.

        Raises:
            ConfigError: a finding the model was not trained on.
        """
        names, asked = asked_findings(self.findings, findings)
        vectors = self._prompt_vectors(names, asked, prompts or {})
        return predict_in_batches(
            self,
            lambda images: self(images, asked, vectors),
            pixels,
            len(names),
            self.grid,
        )

    def _prompt_vectors(
        self, names: Sequence[str], asked: Sequence[int], prompts: Mapping[str, str]
    ) -> Tensor:
        vectors = self.prompt_features[list(asked)].clone()
        changed = [name for name in names if name in prompts]
        select(list(prompts), self.findings, where="prompts") if prompts else None
        if changed:
            words = self._encoded([prompts[name] for name in changed])
            rows = [list(names).index(name) for name in changed]
            vectors[rows] = words.to(vectors)
        return vectors

    def _encoded(self, words: Sequence[str]) -> Tensor:
        encoded = encode_prompts(self.settings.text_encoder, words)
        width = self.prompt_features.shape[1]
        if encoded.shape[1] != width:
            raise CheckpointError(
                f"text encoder {self.settings.text_encoder} gives vectors of "
                f"{encoded.shape[1]} numbers, the model was trained with {width}"
            )
        return encoded

    def save_pretrained(self, folder: Path) -> None:
        """Write the model folder (`models/checkpoint.py`, `save_model`)."""
        from dwarf_cxr.models.checkpoint import save_model

        save_model(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: Path) -> "VisionLanguageClassifier":
        """Read a run's model or a model folder (`models/checkpoint.py`, `load_model`)."""
        from dwarf_cxr.models.checkpoint import load_model

        model = load_model(Path(folder))
        if not isinstance(model, cls):
            raise CheckpointError(f"{folder}: holds a {type(model).__name__}; use load_model")
        return model

    def architecture(self) -> dict[str, Any]:
        """What `models/checkpoint.py` needs to build the same network without its weights."""
        return {
            "settings": self.settings.model_dump(),
            "image_encoder": self.image_encoder.describe(),  # type: ignore[operator]
            "findings": list(self.findings),
            "text_width": self.prompt_features.shape[1],
            "image_size": self.image_size,
        }


def _projection(given: int, width: int, *, wanted: bool) -> nn.Module:
    if wanted:
        return nn.Linear(given, width)
    if given != width:
        raise ConfigError(
            f"an encoder gives vectors of {given} numbers and width is {width}: without a "
            "projection between them (projections) they must be equal"
        )
    return nn.Identity()


def prompts_of(findings: Sequence[str], kind: str) -> list[str]:
    """The words each finding is asked with: its name, or its description where there is one."""
    if kind == "name":
        return list(findings)
    return [DESCRIPTIONS.get(finding, finding) for finding in findings]


def build_classifier(
    settings: ModelSettings, findings: Sequence[str], image_size: int, seed: int
) -> VisionLanguageClassifier:
    """A classifier ready to train: pretrained encoders, fresh decoder, identity heads."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    return VisionLanguageClassifier(
        settings,
        build_image_encoder(settings.image_encoder, settings.frozen_layers),
        findings,
        encode_prompts(settings.text_encoder, prompts_of(findings, settings.prompts)),
        image_size,
        generator,
    )
