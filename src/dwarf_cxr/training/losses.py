"""From a micro-batch to its loss: every forward pass that the objective needs."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwarf_cxr.config import ObjectiveSettings
from dwarf_cxr.detection.targets import boxes_of_regions
from dwarf_cxr.models.building import Trainable
from dwarf_cxr.models.outputs import Prediction
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.objectives import ham
from dwarf_cxr.objectives.attention_mining import erase, external_loss, mining_loss
from dwarf_cxr.objectives.combined import (
    LossCounts,
    LossSums,
    combine,
    loss_sums,
    on_the_film,
    pairs_on_the_film,
)
from dwarf_cxr.objectives.contrastive import NO_TEXT, contrastive_loss
from dwarf_cxr.objectives.detection import detection_loss, known_findings
from dwarf_cxr.objectives.entropy import absent_entropy_loss

LOG_SCALE_LIMIT = math.log(100)
"""CLIP's limit of the contrast's scale."""


class CaptionBatch(NamedTuple):
    """The texts of a process's films, and how they are spread over processes."""

    texts: Int64[Tensor, "batch"]
    """Equal numbers are equal texts; -1 where a film has none."""
    features: Float[Tensor, "batch d"]
    """The frozen text encoder's vector of each."""
    largest_share: int
    """Films of the process that has most."""


class TrainingLoss(nn.Module):
    """A classifier with its objective: films and targets in, sums of losses out.

    It is this module, not the classifier, that is wrapped for several devices: DDP expects one
    backward for each forward through what it wraps, and attention mining passes the classifier
    twice. A term whose weight is 0 is not computed.
    """

    def __init__(
        self,
        model: Trainable,
        objective: ObjectiveSettings,
        positive_weight: Float[Tensor, "finding"],
        fabric: Fabric,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.fabric = fabric
        self.positive_weight: Tensor
        self.register_buffer("positive_weight", positive_weight, persistent=False)

    def forward(
        self,
        images: Float[Tensor, "batch height width"],
        findings: Sequence[int],
        labels: Float[Tensor, "batch finding"],
        regions: Float[Tensor, "batch finding H W"],
        supervised: Bool[Tensor, "batch finding"],
        captions: CaptionBatch | None = None,
    ) -> LossSums:
        """Sums over the films of this process.

        Args:
            images: grey in [0, 1].
            findings: indices of the columns of `labels`, `regions` and `supervised`.
            captions: needed where the objective has a contrastive weight.
        """
        objective = self.objective
        pairs = pairs_on_the_film(supervised, regions)
        positive_weight = self.positive_weight[list(findings)]
        prediction = self.model(images, findings)
        sums = loss_sums(
            prediction.logits.float(),
            prediction.maps.float(),
            labels,
            regions,
            pairs,
            positive_weight,
            objective,
        )
        if objective.mining_weight > 0:
            mining = self._mining(images, prediction, findings, labels == 1)
            sums = sums._replace(mining=mining)
        if objective.external_weight > 0:
            attention = prediction.extras["attention"]
            external = external_loss(attention[pairs], regions[pairs]).sum()
            sums = sums._replace(external=external)
        if objective.detection_weight > 0:
            drawn = on_the_film(supervised, regions)
            detection = detection_loss(
                prediction.extras["class_logits"],
                prediction.extras["offsets"],
                prediction.extras["anchors"],
                boxes_of_regions(regions, drawn, images.shape[-1]),
                known_findings(labels, drawn),
            ).sum()
            sums = sums._replace(detection=detection)
        sums = self._hierarchy(sums, prediction, labels, regions, supervised)
        if objective.entropy_weight > 0:
            entropy = absent_entropy_loss(_log_attention(prediction), labels).sum()
            sums = sums._replace(entropy=entropy)
        if objective.contrastive_weight > 0 and captions is not None:
            # last: its backward comes first, so that its exchange between processes is not mixed
            # up with that of gradients
            contrastive = self._contrastive(prediction.extras["image_vector"], captions)
            sums = sums._replace(contrastive=contrastive)
        return sums

    def _mining(
        self,
        images: Tensor,
        prediction: Prediction,
        findings: Sequence[int],
        present: Bool[Tensor, "batch finding"],
    ) -> Float[Tensor, ""]:
        """GAIN's L_am: one erased film per present finding, as the paper has it for many labels.

        Dropout stays on: the erased film is scored as the films that the label loss trains on.
        Gradients go into all weights, in both passes.
        """
        film, finding = present.nonzero(as_tuple=True)
        if not len(film):
            return images.new_zeros(())
        erased = erase(
            images[film],
            prediction.extras["attention"][film, finding],
            slope=self.objective.mining_slope,
            threshold=self.objective.mining_threshold,
        )
        with frozen_batch_norm(self.model):
            logits = self.model(erased, findings).logits
        return mining_loss(logits.gather(1, finding[:, None])[:, 0]).sum()

    def _hierarchy(
        self,
        sums: LossSums,
        prediction: Prediction,
        labels: Float[Tensor, "batch finding"],
        regions: Float[Tensor, "batch finding H W"],
        supervised: Bool[Tensor, "batch finding"],
    ) -> LossSums:
        """`sums` with HAM's terms."""
        objective, extras = self.objective, prediction.extras
        if objective.anomaly_weight > 0:
            anomaly = ham.anomaly_loss(extras["anomaly_logit"], labels).sum()
            sums = sums._replace(anomaly=anomaly)
        if objective.bound_weight > 0:
            bound = ham.bound_loss(extras["cam"], extras["anomaly_cam"], labels)
            sums = sums._replace(bound=bound)
        if objective.union_weight > 0:
            union = ham.union_loss(extras["cam"], extras["anomaly_cam"], labels)
            sums = sums._replace(union=union)
        if objective.box_weight > 0:
            rows, columns = regions.shape[-2:]
            refined = ham.refined_map(extras["cam"], (rows, columns))
            drawn = on_the_film(supervised, regions)
            sums = sums._replace(box=ham.box_loss(refined, regions, drawn))
        return sums

    def _contrastive(
        self, image_vectors: Float[Tensor, "batch d"], captions: CaptionBatch
    ) -> Float[Tensor, ""]:
        """The terms of this process's films, against the films and texts of all processes."""
        model = self.model
        # settings with a contrastive weight make such a model, and its scale
        assert isinstance(model, VisionLanguageClassifier)
        assert model.log_scale is not None
        log_scale = model.log_scale
        with torch.no_grad():
            # the number itself, as in CLIP: a limit in the graph would hold it there for good
            log_scale.clamp_(max=LOG_SCALE_LIMIT)
        text_vectors = model.text_vectors(captions.features)
        with torch.autocast(image_vectors.device.type, enabled=False):
            # shares differ by a film, what is gathered must not
            missing = captions.largest_share - len(image_vectors)
            images, texts = (
                self._gather(F.pad(vectors.float(), (0, 0, 0, missing)))
                for vectors in (image_vectors, text_vectors)
            )
            said = self._gather(F.pad(captions.texts, (0, missing), value=NO_TEXT))
            losses = contrastive_loss(images, texts, said, log_scale.exp())
        begin = self.fabric.global_rank * captions.largest_share
        return losses[begin : begin + captions.largest_share].sum()

    def _gather(self, mine: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return mine
        every = self.fabric.all_gather(mine.contiguous(), sync_grads=mine.requires_grad)
        return every.flatten(0, 1)


def _log_attention(prediction: Prediction) -> Tensor:
    """Logarithms of the masks: the network's own, or of what its softmax left of them."""
    if "log_attention" in prediction.extras:
        return prediction.extras["log_attention"]
    attention = prediction.extras["attention"].float()
    return attention.clamp(min=torch.finfo(attention.dtype).tiny).log()


@contextlib.contextmanager
def frozen_batch_norm(module: nn.Module) -> Iterator[None]:
    """Let batch norms use their running statistics and not change them.

    Erased films are not films; their statistics would spoil those of the prediction.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def added_loss_columns(objective: ObjectiveSettings) -> tuple[str, ...]:
    """The columns of history.csv for the terms that this objective adds to the paper's."""
    weights = {
        "mining_loss": objective.mining_weight,
        "external_loss": objective.external_weight,
        "contrastive_loss": objective.contrastive_weight,
        "entropy_loss": objective.entropy_weight,
        "anomaly_loss": objective.anomaly_weight,
        "detection_loss": objective.detection_weight,
        "bound_loss": objective.bound_weight,
        "union_loss": objective.union_weight,
        "box_loss": objective.box_weight,
    }
    return tuple(name for name, weight in weights.items() if weight > 0)


def loss_columns(objective: ObjectiveSettings) -> tuple[str, ...]:
    """The columns of the terms that are minimised, of the paper's and of others."""
    paper = {
        "label_loss": objective.label_weight * (1 - objective.seg_weight),
        "dice_loss": objective.seg_weight,
    }
    used = [name for name, weight in paper.items() if weight > 0]
    return (*used, *added_loss_columns(objective))


def mean_losses(
    totals: Mapping[str, float], objective: ObjectiveSettings
) -> dict[str, float | None]:
    """The means of an epoch, by column of history.csv, from its summed sums and counts."""
    names = ("loss", "dice_loss", "label_loss", *added_loss_columns(objective))
    if not totals:
        return dict.fromkeys(names)
    # a state of an older version lacks the newer terms
    sums = LossSums(*(_number(totals.get(name, 0.0)) for name in LossSums._fields))
    counts = LossCounts(*(_number(totals.get(name, 0.0)) for name in LossCounts._fields))
    means = {
        "loss": float(combine(sums, counts, objective)),
        "dice_loss": _mean(sums.dice, counts.pairs),
        "label_loss": float(sums.label / counts.labels.clamp(min=1)),
        "mining_loss": _mean(sums.mining, counts.present),
        "external_loss": _mean(sums.external, counts.pairs),
        "contrastive_loss": _mean(sums.contrastive, counts.captioned),
        "entropy_loss": _mean(sums.entropy, counts.absent),
        "anomaly_loss": _mean(sums.anomaly, counts.judged),
        "detection_loss": _mean(sums.detection, counts.films),
        "bound_loss": _mean(sums.bound, counts.batches),
        "union_loss": _mean(sums.union, counts.batches),
        "box_loss": _mean(sums.box, counts.batches),
    }
    return {name: means[name] for name in names}


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _mean(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if count else None
