"""Training `report-attention`: a frozen detector's regions against the words of reports.

The detector is asked once for every film; what is trained is small and sees its regions only. Films
are not moved: "left" and "right" in a report are the film's.
"""

import dataclasses
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dwarf_cxr.config import ReportAttentionSettings, RunConfig, save_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError, DataError
from dwarf_cxr.evaluation.calibration import fit_card, seen_by_training
from dwarf_cxr.evaluation.evaluate import QuickScorer, refuse_seen_patients
from dwarf_cxr.evaluation.references import mean_coverage
from dwarf_cxr.evaluation.scores import area_under_curve, rank_sums
from dwarf_cxr.files import exclusive, write_csv
from dwarf_cxr.models.checkpoint import Model, load_model, save_model
from dwarf_cxr.models.outputs import ModelCard, Outputs
from dwarf_cxr.models.region_attention import RegionAttention, Regions
from dwarf_cxr.models.report_attention import FoundRegions, ReportAttention
from dwarf_cxr.models.retinanet import RetinaNet
from dwarf_cxr.objectives.label_loss import label_loss, positive_weights
from dwarf_cxr.objectives.region_text import Similarity, similarity, triplet_loss
from dwarf_cxr.progress import Report
from dwarf_cxr.reports.attributes import ATTRIBUTES
from dwarf_cxr.reports.neighbours import AttributeWords
from dwarf_cxr.reports.parse import attribute_table
from dwarf_cxr.reports.word_vectors import WordVectors, train_word_vectors
from dwarf_cxr.training.optimisation import rate_factor, set_rates
from dwarf_cxr.training.state import Progress, has_state, load_state, refuse_other_run, save_state

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "seconds",
    "lr",
    "loss",
    "attribute_loss",
    "triplet_loss",
    "val_loss",
    "val_attribute_auc",
    "val_auc",
    "val_dice",
    "val_hit_rate",
    "best",
)
ASKED = 16
"""Films whose regions are made together."""


class ReportedFilms(NamedTuple):
    """Films with reports, as the network sees them."""

    best: Regions
    worst: Regions
    attributes: Float[Tensor, "film attribute"]
    """1, 0 or NaN."""
    others: Float[Tensor, "film attribute d"]
    """The word in each attribute's place; zeros where there is none."""

    def rows(self, indices: Tensor) -> "ReportedFilms":
        """Some of the films."""
        return ReportedFilms(
            self.best.rows(indices),
            self.worst.rows(indices),
            self.attributes[indices],
            self.others[indices],
        )


def reports_digest(reports: Sequence[Path], corpus: Path | None) -> str:
    """What tells whether data sets and corpus are those of an earlier call.

    Raises:
        DataError: not prepared, or no such file.
    """
    digest = sha256()
    for folder in reports:
        digest.update(PreparedData.open(folder).fingerprint.encode())
    digest.update("\n".join(read_corpus(corpus)).encode())
    return digest.hexdigest()


def read_corpus(corpus: Path | None) -> list[str]:
    """The reports of a text file, one a line.

    Raises:
        DataError: no such file, or not text in UTF-8.
    """
    if corpus is None:
        return []
    try:
        return corpus.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(
            f"--corpus {corpus}: not text in UTF-8; give a file of one report a line"
        ) from None
    except OSError as fault:
        why = "no such file" if isinstance(fault, FileNotFoundError) else fault.strerror
        raise DataError(f"--corpus {corpus}: {why}; give a file of one report a line") from None


def as_detector(initial: Model | None, where: str | Path | None) -> RetinaNet:
    """`initial`, the model of `where`, as the detector whose regions are ranked.

    Raises:
        ConfigError: there is none.
        CheckpointError: it is another network.
    """
    if initial is None:
        raise ConfigError(
            "report-attention ranks the regions of a detector: train one with `dwarf train "
            "retinanet` and give it with --init RUN"
        )
    if not isinstance(initial, RetinaNet):
        raise CheckpointError(
            f"--init {where}: a {type(initial).__name__} is no detector; give a run of "
            "`dwarf train retinanet`"
        )
    return initial


def train_report_attention(
    config: RunConfig, out: Path, *, resume: bool = False, report: Report
) -> None:
    """Train the run that `config` fixes and write it to `out`.

    The epoch is the one with the lowest loss on the reports' validation split; thresholds and prior
    come from the validation and training split of the data, as every model's do.

    Raises:
        ConfigError: no detector or reports given, several devices, or a run is there already.
        DataError: no text to learn from, or data that changed since.
        CheckpointError: the initial model is no detector, or saw patients that judge it.
    """
    if config.settings.training.devices * config.settings.training.nodes > 1:
        raise ConfigError("devices, nodes > 1: report-attention trains for a minute, on one device")
    detector = as_detector(
        None if config.init is None else load_model(Path(config.init)), config.init
    )
    data = PreparedData.open(Path(config.data)).restrict(config.findings)
    _refuse_changes(config, data)
    if detector.card is None or detector.image_size != data.size:
        raise CheckpointError(
            f"--init {config.init}: the detector wants images of {detector.image_size} px, "
            f"{config.data} has {data.size} px; prepare the data with --size {detector.image_size}"
        )
    for split in ("val", "test"):
        refuse_seen_patients(detector.card, data, split)
    with exclusive(out):
        refuse_other_run(config, out, resume=resume)
        _train(config, data, detector, out, report)


def _train(
    config: RunConfig, data: PreparedData, detector: RetinaNet, out: Path, report: Report
) -> None:
    settings, objective = config.settings.training, config.settings.objective
    own = config.settings.model
    assert isinstance(own, ReportAttentionSettings)
    with_text = [PreparedData.open(Path(folder)) for folder in config.reports or (config.data,)]
    words = AttributeWords.of(_word_vectors(config, with_text, own.width))
    torch.manual_seed(config.seed)
    model = ReportAttention(
        own, detector, ATTRIBUTES, torch.Generator().manual_seed(config.seed)
    ).to(_device(config))
    films = {split: _films_of(model, with_text, split, words, report) for split in ("train", "val")}
    report(
        f"{len(films['train'].attributes)} films with reports to learn from, "
        f"{len(films['val'].attributes)} to choose the epoch by; attributes without a word of "
        f"their own: {', '.join(_unknown(words)) or 'none'}",
        0,
        settings.epochs,
    )
    weights = positive_weights(films["train"].attributes, objective.positive_weight_cap)
    loss = RegionLoss(model.attention, own, objective.triplet_margin, words, weights)
    optimizer = torch.optim.AdamW(
        [{"params": list(model.attention.parameters()), "base_lr": settings.lr}],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )
    progress = Progress()
    if has_state(out):
        progress = load_state(out / "last", model.attention, optimizer)
    else:
        save_config(config, out / "config.yaml")  # nothing is refused from here on
    batches = -(-len(films["train"].attributes) // settings.batch_size)
    steps = settings.epochs * batches
    judge = _Judge(config, data, model, detector, with_text, report)
    started = time.monotonic() - progress.seconds
    while progress.epoch < settings.epochs:
        # an epoch is short: a resume continues at its start
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([config.seed, progress.epoch]).generate_state(1)[0])
        )
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        order = torch.randperm(len(films["train"].attributes), generator=generator)
        model.train()
        totals: list[tuple[float, float, float]] = []
        for part in order.tensor_split(batches):
            set_rates(optimizer, rate_factor(settings, progress.step, steps))
            attribute, triplet = loss(films["train"].rows(part.to(weights.device)))
            total = attribute + objective.triplet_weight * triplet
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(model.attention.parameters(), settings.clip)
            optimizer.step()
            totals.append((total.item(), attribute.item(), triplet.item()))
            progress.step += 1
        progress.epoch += 1
        model.eval()
        with torch.no_grad():
            attribute, triplet = loss(films["val"])
            judged = float(attribute + objective.triplet_weight * triplet)
            told = model.attention(films["val"].best).attributes
        auc = macro_auc(films["val"].attributes, told)
        best = progress.best_score is None or -judged > progress.best_score
        outputs = judge.outputs(model)
        scores = judge.scorer(outputs.probability, outputs.maps)
        if best:
            progress.best_score = -judged
            model.card = judge.card(model, outputs)
            save_model(model, out / "model")
        means = np.mean(totals, axis=0)
        progress.seconds = time.monotonic() - started
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": round(progress.seconds, 1),
            "lr": settings.lr * rate_factor(settings, progress.step - 1, steps),
            **dict(zip(("loss", "attribute_loss", "triplet_loss"), means.tolist(), strict=True)),
            "val_loss": judged,
            "val_attribute_auc": auc,
            "val_auc": scores["auc"],
            "val_dice": scores["dice"],
            "val_hit_rate": scores["hit_rate"],
            "best": int(best),
        }
        progress.history.append(row)
        write_csv(out / "history.csv", HISTORY_COLUMNS, progress.history)
        save_state(out / "last", model.attention, optimizer, progress)
        shown = "-" if auc is None else f"{auc:.3f}"
        report(
            f"epoch {progress.epoch}/{settings.epochs} loss {means[0]:.3f} validation: loss "
            f"{judged:.3f} attribute auc {shown}{' *' if best else ''}",
            progress.step,
            steps,
        )


class RegionLoss(nn.Module):
    """L_BCE and L_trip (the paper's equation 1) of films with reports."""

    def __init__(
        self,
        attention: RegionAttention,
        settings: ReportAttentionSettings,
        margin: float,
        words: AttributeWords,
        positive_weight: Float[Tensor, "attribute"],
    ) -> None:
        super().__init__()
        self.attention = attention
        self.settings = settings
        self.margin = margin
        device = positive_weight.device
        self.words = torch.from_numpy(words.vectors).to(device)
        self.known = torch.from_numpy(words.known).to(device)
        self.positive_weight = positive_weight

    def forward(self, films: ReportedFilms) -> tuple[Tensor, Tensor]:
        """Means over assessed attributes, and over films of which words and regions are known."""
        answer = self.attention(films.best)
        terms = label_loss(answer.attributes, films.attributes, self.positive_weight)
        assessed = (~torch.isnan(films.attributes)).sum()
        attribute = terms.sum() / assessed.clamp(min=1)
        said = (films.attributes == 1) & self.known
        replaced = said & films.others.any(dim=-1)
        usable = replaced.any(dim=1) & films.best.there.any(dim=1) & films.worst.there.any(dim=1)
        if not bool(usable.any()):
            return attribute, attribute.new_zeros(())
        rows = usable.nonzero()[:, 0]
        best, worst = films.best.rows(rows), films.worst.rows(rows)
        own_words = self.words.expand(len(rows), -1, -1)
        said, replaced, others = said[rows], replaced[rows], films.others[rows]
        embedded, weights = answer.embedded[rows], answer.attention[rows]
        own = self._similar(embedded, weights, best.there, own_words, said)
        low = self.attention(worst)
        worst_regions = self._similar(low.embedded, low.attention, worst.there, own_words, said)
        # like with like: only words that have another in their place
        same = self._similar(embedded, weights, best.there, own_words, replaced)
        other = self._similar(embedded, weights, best.there, others, replaced)
        losses = triplet_loss(
            own._replace(words=same.words), worst_regions.regions, other.words, self.margin
        )
        return attribute, losses.mean()

    def _similar(
        self,
        regions: Tensor,
        weights: Tensor,
        there: Bool[Tensor, "film region"],
        words: Tensor,
        said: Bool[Tensor, "film attribute"],
    ) -> Similarity:
        return similarity(
            regions,
            weights,
            there,
            words,
            said,
            word_sharpness=self.settings.word_sharpness,
            region_sharpness=self.settings.region_sharpness,
        )


def macro_auc(
    labels: Float[Tensor, "film attribute"], logits: Float[Tensor, "film attribute"]
) -> float | None:
    """Mean AUC over attributes that some films have and some have not; None without any."""
    values = []
    for label, logit in zip(labels.T.double().cpu(), logits.T.double().cpu(), strict=True):
        if bool((label == 1).any()) and bool((label == 0).any()):
            sums = rank_sums(
                label.numpy(), logit.numpy(), np.arange(len(label)), np.ones((1, len(label)))
            )
            values.append(float(area_under_curve(sums)[0]))
    return float(np.mean(values)) if values else None


def _films_of(
    model: ReportAttention,
    with_text: Sequence[PreparedData],
    split: str,
    words: AttributeWords,
    report: Report,
) -> ReportedFilms:
    parts: list[ReportedFilms] = []
    model.eval()
    device = next(model.parameters()).device
    for data in with_text:
        if data.size != model.image_size:
            raise DataError(
                f"{data.folder}: images of {data.size} px, the detector wants {model.image_size}; "
                f"prepare the data with --size {model.image_size}"
            )
        indices = [int(index) for index in data.indices(split) if data.texts[index]]
        for start in range(0, len(indices), ASKED):
            report(f"regions of {data.name}, {split}", start, len(indices))
            chunk = indices[start : start + ASKED]
            found = _ask(model, data, chunk)
            texts = [data.texts[index] or "" for index in chunk]
            table = attribute_table(texts)
            others = [
                words.hard_negatives(row == 1, text) for row, text in zip(table, texts, strict=True)
            ]
            parts.append(
                ReportedFilms(
                    found.best,
                    found.worst,
                    torch.from_numpy(table).float().to(device),
                    torch.from_numpy(np.stack(others)).to(device),
                )
            )
    if not parts:
        names = ", ".join(str(data.folder) for data in with_text)
        raise DataError(
            f"no film of the {split} split of {names} has a text; give data with reports "
            "(openi, covid, synthetic, or a `text` column of csv) with --reports"
        )
    return ReportedFilms(
        _joined([part.best for part in parts]),
        _joined([part.worst for part in parts]),
        torch.cat([part.attributes for part in parts]),
        torch.cat([part.others for part in parts]),
    )


def _joined(parts: Sequence[Regions]) -> Regions:
    return Regions(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _word_vectors(config: RunConfig, with_text: Sequence[PreparedData], width: int) -> WordVectors:
    texts = [
        text
        for data in with_text
        for index in data.indices("train")
        if (text := data.texts[index]) is not None
    ]
    corpus = read_corpus(None if config.corpus is None else Path(config.corpus))
    return train_word_vectors([*texts, *corpus], width=width, seed=config.seed)


def _unknown(words: AttributeWords) -> list[str]:
    return [name for name, known in zip(ATTRIBUTES, words.known, strict=True) if not known]


def _refuse_changes(config: RunConfig, data: PreparedData) -> None:
    digest = reports_digest(
        [Path(folder) for folder in config.reports],
        None if config.corpus is None else Path(config.corpus),
    )
    if data.fingerprint != config.data_fingerprint or digest != config.reports_sha256:
        raise DataError(
            f"{config.data} or the reports changed since the run was configured; prepare them as "
            "they were, or start anew"
        )


class _Judge:
    """What the data's own splits say of the model as it stands; its regions stay what they are."""

    def __init__(
        self,
        config: RunConfig,
        data: PreparedData,
        model: ReportAttention,
        detector: RetinaNet,
        with_text: Sequence[PreparedData],
        report: Report,
    ) -> None:
        self.data, self.detector, self.with_text = data, detector, with_text
        self.method = config.method
        self.prior = mean_coverage(data, data.indices("train"))
        val = data.indices("val")
        self.scorer = QuickScorer(data, val)
        self.found = []
        for start in range(0, len(val), ASKED):
            report(f"regions of {data.name}, val", start, len(val))
            self.found.append(_ask(model, data, val[start : start + ASKED].tolist()))

    @torch.no_grad()
    def outputs(self, model: ReportAttention) -> Outputs:
        """Of the validation films."""
        said = [model.judge(found) for found in self.found]
        probability = torch.cat([one.logits for one in said]).double().sigmoid()
        maps = torch.cat([one.maps for one in said]).float()
        return Outputs(probability.cpu().numpy(), maps.cpu().numpy(), {})

    def card(self, model: ReportAttention, outputs: Outputs) -> ModelCard:
        """Thresholds from the data's validation; patients of the reports are seen too."""
        started_from = self.detector.card
        card = fit_card(
            model,
            self.data,
            outputs,
            self.prior,
            method=self.method,
            started_from=started_from,
        )
        for reported in self.with_text:
            patients, files = seen_by_training(reported)
            card = dataclasses.replace(
                card,
                seen_patients=np.union1d(card.seen_patients, patients),
                seen_files=np.union1d(card.seen_files, files),
            )
        return card


def _ask(model: ReportAttention, data: PreparedData, indices: Sequence[int]) -> FoundRegions:
    images = torch.from_numpy(np.ascontiguousarray(data.pixels[indices]))
    return model.regions(images.to(next(model.parameters()).device).float() / 255)


def _device(config: RunConfig) -> torch.device:
    wanted = config.settings.training.accelerator
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
