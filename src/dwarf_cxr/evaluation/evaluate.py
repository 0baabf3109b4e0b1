"""Evaluating a model on a split: cases, metrics with intervals, references, thresholds."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from dwarf_cxr import __version__
from dwarf_cxr.data.harmonise import Agreement, agree, harmonise_data
from dwarf_cxr.data.label_map import LabelMap, load_label_map
from dwarf_cxr.data.splits import patient_hashes, splits_sha256
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.evaluation.attributes import attribute_block
from dwarf_cxr.evaluation.bootstrap import Estimate
from dwarf_cxr.evaluation.cases import (
    MAP_COLUMNS,
    METRICS,
    ONE_FILM,
    SHUFFLED_COLUMNS,
    Cases,
    summarise,
    write_cases,
)
from dwarf_cxr.evaluation.cost import Stopwatch, cost_block
from dwarf_cxr.evaluation.detections import BOXES_FILE, evaluate_detections
from dwarf_cxr.evaluation.localisation import localisation
from dwarf_cxr.evaluation.maps import any_marks, fit_map_threshold, score_map, score_union, upsample
from dwarf_cxr.evaluation.mean_maps import MeanMapsSum, summed, write_mean_maps
from dwarf_cxr.evaluation.oracle import oracle
from dwarf_cxr.evaluation.pair_scores import PairScores, Tables
from dwarf_cxr.evaluation.processes import ALONE, Processes
from dwarf_cxr.evaluation.references import (
    REFERENCES,
    SHUFFLES,
    all_ones,
    best_grid,
    prior_scores,
    shuffled,
)
from dwarf_cxr.evaluation.scores import fit_score_threshold, refuse_nan_scores
from dwarf_cxr.files import write_bytes, write_json
from dwarf_cxr.models.merged import MergedClassifier, MergedOutputs
from dwarf_cxr.models.outputs import AttributeReader, Classifier, ModelCard
from dwarf_cxr.models.predicting import Precision, predicting_at
from dwarf_cxr.progress import Report

BATCH = 64
"""Images predicted together; maps of images without regions are not kept."""

MAPLESS = "no map of it was scored"
THRESHOLD_POLICY = (
    "fitted on the validation split of the training data and stored in the model: scores by "
    "largest F1, maps and prior by largest mean Dice; max_dice is an oracle"
)
ZERO_SHOT_POLICY = (
    "the model was not trained on these data; thresholds and prior are those that the splits "
    "of `trained_on` give: scores by largest F1, maps and prior by largest mean Dice on its "
    "validation split; max_dice is an oracle"
)
MERGED_POLICY = (
    "; of a finding made of several, score, map and prior are the largest, and it is called "
    "present, and a pixel marked, where one of them is by its own threshold"
)

WHY_UNSCORED = dict.fromkeys(REFERENCES, MAPLESS) | {
    "train_prior": "the training set has no region of the finding",
    "shuffled": ONE_FILM,
}
"""Why a reference may be undefined where the method's own maps are not."""

REFERENCE_METRICS = tuple(metric for metric in MAP_COLUMNS if metric != "fp_area")


def evaluate(
    model: Classifier,
    data: PreparedData,
    *,
    split: str,
    out: Path,
    draws: int = 1000,
    save_maps: bool = False,
    seed: int | None = None,
    supervision: Mapping[str, Any] | None = None,
    bootstrap_seed: int = 0,
    label_map: LabelMap | None = None,
    precision: Precision = "fp32",
    report: Report | None = None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Score `model` on a split; write metrics.json, cases.csv, mean maps and, if asked, all maps.

    A detector's own boxes go to boxes.csv, and their scores to the block `boxes`.

    Evaluated are the findings that model and data share (`data/harmonise.py`, `agree`). Thresholds
    and train prior are those stored in the model, from its own validation and training splits.

    Args:
        seed: the training's, only recorded.
        supervision: the block of that name (`evaluation/supervision.py`), only recorded.
        label_map: what findings of different data sets are the same; by default the package's.
        precision: of scores and maps; a detector's boxes are always made in fp32.
        processes: each scores a share of the images; the first gathers them, computes the metrics
            and writes.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: the split is empty, no finding is shared, a score is not a number, or patients
            of the split were trained on (the same data set under other splits).
        CheckpointError: the model carries no card, or wants images of another size.
    """
    card = model.card
    if card is None:
        raise CheckpointError("the model has no card (thresholds, prior); it cannot be evaluated")
    if model.image_size != data.size:
        raise CheckpointError(
            f"the model wants images of {model.image_size} px, {data.folder} has {data.size} px; "
            f"prepare the data with --size {model.image_size}"
        )
    label_map = load_label_map() if label_map is None else label_map
    agreement = agree(
        model.findings,
        card.data_name,
        data.findings,
        data.name,
        label_map,
        model_harmonised=card.harmonised,
        data_harmonised=data.harmonised,
    )
    data = harmonise_data(data, agreement.data_unions)
    judge = MergedClassifier(model, agreement.model_parts)
    indices = data.indices(split)
    if not len(indices):
        present = ", ".join(sorted(set(data.splits)))
        raise DataError(f"{data.folder}: no image in split {split!r}; its splits are {present}")

    refuse_seen_patients(card, data, split)
    share = processes.share(len(indices), BATCH)
    collected = _Collected(judge, data, indices[share])
    predicting = Stopwatch()
    means = MeanMapsSum(judge.findings, card.map_domain)
    kept_maps: list[Float32[np.ndarray, "batch finding h w"]] = []
    detected: list[Detections] = []
    told: list[Float64[np.ndarray, "batch attribute"]] = []
    for start in range(share.start, share.stop, BATCH):
        if report is not None:
            report(f"scoring {split} images", start, len(indices))
        chunk = indices[start : min(start + BATCH, share.stop)]
        pixels = np.ascontiguousarray(data.pixels[chunk])
        with predicting.running(), predicting_at(precision, model):
            outputs = judge.predict(pixels)
        collected.add(start - share.start, chunk, outputs)
        means.add(data.labels[chunk], data.pixels[chunk], outputs.maps)
        detected += outputs.own.detections or ()
        if outputs.own.attributes is not None:
            told.append(outputs.own.attributes)
        if save_maps:
            kept_maps.append(outputs.maps)
    every = processes.gather(
        (collected.part(), means, kept_maps, predicting.seconds, detected, told)
    )
    if every is None:
        return processes.from_first(None)
    if processes.count > 1:
        collected = _joined(judge, data, indices, [part[0] for part in every])
        means = summed([part[1] for part in every])
        kept_maps = [maps for part in every for maps in part[2]]
        detected = [one for part in every for one in part[4]]
        told = [rows for part in every for rows in part[5]]
    seconds = sum(part[3] for part in every)
    collected.add_shuffled(np.random.default_rng(bootstrap_seed))

    cases = collected.cases
    refuse_nan_scores(cases.scores, cases.image_ids, cases.findings)
    findings, macro = summarise(cases, METRICS, draws=draws, seed=bootstrap_seed)
    references = {
        name: _block(collected.as_cases(scores, WHY_UNSCORED[name]), draws, bootstrap_seed)
        for name, scores in collected.references.items()
    }
    metrics: dict[str, Any] = {
        "method": card.method,
        "seed": seed,
        "findings_order": list(judge.findings),
        "protocol": _protocol(card, data, agreement, label_map, split, draws, bootstrap_seed),
        "findings": {
            name: {metric: estimate.to_json() for metric, estimate in values.items()}
            for name, values in findings.items()
        },
        "macro": _json(macro),
        "references": references,
        "oracle": oracle(cases, draws=draws, seed=bootstrap_seed),
        "localisation": localisation(cases, draws=draws, seed=bootstrap_seed),
        "cost": cost_block(model, seconds, len(indices), precision),
    }
    if supervision is not None:
        metrics["supervision"] = dict(supervision)
    if collected.evidence is not None:
        metrics["parts"] = {
            "evidence": _block(
                collected.as_cases(collected.evidence, MAPLESS), draws, bootstrap_seed
            )
        }
    if detected:
        metrics["boxes"] = evaluate_detections(
            detected,
            model.image_size,
            judge.columns,
            data,
            indices,
            out / BOXES_FILE,
            draws=draws,
            seed=bootstrap_seed,
        )
    if isinstance(model, AttributeReader):
        block = attribute_block(
            model.attributes,
            np.concatenate(told),
            data,
            indices,
            draws=draws,
            seed=bootstrap_seed,
        )
        if block is not None:
            metrics["attributes"] = block
    write_cases(cases, out / "cases.csv")
    write_mean_maps(means.mean(), out / "mean-maps.npz")
    if save_maps:
        _write_maps(out / "maps.npz", np.concatenate(kept_maps), cases)
    write_json(out / "metrics.json", metrics)
    return processes.from_first(metrics)


def fit_card_thresholds(
    probability: Float[np.ndarray, "image finding"],
    maps: Float[np.ndarray, "image finding h w"],
    data: PreparedData,
    indices: np.ndarray,
    train_prior: Float[np.ndarray, "finding size size"],
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, float | None]]:
    """Score, map and prior thresholds of every finding, from the validation images `indices`.

    `probability` and `maps` are those images' outputs, in order.
    """
    supervised = (data.has_region() & (data.labels == 1))[indices]
    score: dict[str, float | None] = {}
    map_: dict[str, float | None] = {}
    prior: dict[str, float | None] = {}
    for finding, name in enumerate(data.findings):
        score[name] = fit_score_threshold(data.labels[indices, finding], probability[:, finding])
        rows = np.flatnonzero(supervised[:, finding])
        truths = [data.coverage(int(indices[row]), name, data.size) for row in rows]
        drawn = [upsample(maps[row, finding], data.size) for row in rows]
        map_[name] = fit_map_threshold(drawn, truths)
        fixed = train_prior[finding]
        prior[name] = fit_map_threshold([fixed] * len(rows), truths) if fixed.any() else None
    return score, map_, prior


class QuickScorer:
    """Macro AUC, Dice and hit rate on validation images during training, without intervals.

    Truths are held at a coarser grid than the evaluation's and the Dice threshold is fitted on the
    same images, so that these values choose an epoch but are no result.
    """

    SIZE = 56

    def __init__(self, data: PreparedData, indices: np.ndarray) -> None:
        self.data, self.indices = data, indices
        supervised = (data.has_region() & (data.labels == 1))[indices]
        self.pairs = np.argwhere(supervised)
        self.truths = [
            data.coverage(int(indices[row]), data.findings[finding], self.SIZE)
            for row, finding in self.pairs
        ]

    def __call__(
        self,
        probability: Float[np.ndarray, "image finding"],
        maps: Float[np.ndarray, "image finding h w"],
    ) -> dict[str, float | None]:
        """`auc`, `dice` and `hit_rate`; None where no finding defines them."""
        images, findings = probability.shape
        map_scores = PairScores(images, findings)
        for finding in range(findings):
            chosen = np.flatnonzero(self.pairs[:, 1] == finding)
            truths = [self.truths[pair] for pair in chosen]
            rows = [int(self.pairs[pair, 0]) for pair in chosen]
            drawn = [upsample(maps[row, finding], self.SIZE) for row in rows]
            threshold = fit_map_threshold(drawn, truths)
            for row, map_, truth in zip(rows, drawn, truths, strict=True):
                map_scores.add(row, finding, score_map(map_, truth, threshold))
        cases = Cases(
            image_ids=tuple(map(str, range(images))),
            patient_ids=tuple(map(str, range(images))),
            findings=self.data.findings,
            labels=self.data.labels[self.indices].astype(np.float64),
            scores=np.asarray(probability, dtype=np.float64),
            present=np.full((images, findings), np.nan),
            n_regions=np.zeros((images, findings)),
            maps=Tables(map_scores.makers()),
        )
        refuse_nan_scores(
            cases.scores,
            tuple(self.data.image_ids[index] for index in self.indices),
            self.data.findings,
        )
        weights = np.ones((1, images))
        values = {}
        for name in ("auc", "dice", "hit_rate"):
            points = cases.per_finding(name, weights)[0]
            defined = points[~np.isnan(points)]
            values[name] = float(defined.mean()) if len(defined) else None
        return values


class _Part(NamedTuple):
    """What one process collected of its images: plain arrays, as `_Collected` has them."""

    image_ids: tuple[str, ...]
    scores: np.ndarray
    present: np.ndarray
    fp_area: np.ndarray
    own: PairScores
    references: dict[str, PairScores]
    evidence: PairScores | None
    positive_maps: dict[tuple[int, int], np.ndarray]


class _Collected:
    """Fills the tables of cases batch by batch."""

    def __init__(self, judge: MergedClassifier, data: PreparedData, indices: np.ndarray) -> None:
        shape = (len(indices), len(data.findings))
        self.data, self.indices, self.judge = data, indices, judge
        self.supervised = (data.has_region() & (data.labels == 1))[indices]
        self.references = {name: PairScores(*shape) for name in REFERENCES}
        self.own, self.fp_area = PairScores(*shape), np.full(shape, np.nan)
        self.evidence: PairScores | None = None
        self.positive_maps: dict[tuple[int, int], np.ndarray] = {}
        n_regions = np.zeros(shape)
        for row, index in enumerate(indices):
            if int(index) in data.regions_by_image:
                n_regions[row] = [len(data.regions(index, name)) for name in data.findings]
        shuffled_scores = self.references["shuffled"].makers()
        self.cases = Cases(
            image_ids=tuple(data.image_ids[index] for index in indices),
            patient_ids=tuple(data.patient_ids[index] for index in indices),
            findings=data.findings,
            labels=data.labels[indices].astype(np.float64),
            scores=np.full(shape, np.nan),
            present=np.full(shape, np.nan),
            n_regions=n_regions,
            maps=Tables(
                {
                    **self.own.makers(),
                    "fp_area": lambda images: self.fp_area[images],
                    **{column: shuffled_scores[of] for column, of in SHUFFLED_COLUMNS.items()},
                }
            ),
        )

    def add(self, start: int, chunk: np.ndarray, outputs: MergedOutputs) -> None:
        """Take the outputs of the images `chunk`, whose first row is `start`."""
        rows = slice(start, start + len(chunk))
        self.cases.scores[rows] = outputs.probability
        self.cases.present[rows] = outputs.present
        for finding in range(len(self.data.findings)):
            for offset in range(len(chunk)):
                self._add_map(start + offset, finding, outputs, offset)

    def _add_map(self, row: int, finding: int, outputs: MergedOutputs, offset: int) -> None:
        name, size = self.data.findings[finding], self.data.size
        limits, columns = self.judge.map_limits[name], self.judge.columns[name]
        # fancy indexing copies: a view would keep the maps of the whole batch in memory
        maps = outputs.own.maps[offset, columns]
        if self.cases.labels[row, finding] == 0 and limits is not None:
            marked = any_marks([upsample(one, size) for one in maps], limits)
            self.fp_area[row, finding] = marked.mean()
        if not self.supervised[row, finding]:
            return
        truth = self.data.coverage(int(self.indices[row]), name, size)
        try:
            scores = score_union(maps, truth, limits)
        except DataError as fault:
            raise DataError(f"image {self.cases.image_ids[row]}, {name}: {fault}") from None
        self.own.add(row, finding, scores)
        self.positive_maps[row, finding] = maps
        self.references["all_ones"].add(row, finding, all_ones(truth))
        grid = (maps.shape[1], maps.shape[2])
        self.references["best_grid"].add(row, finding, best_grid(truth, grid))
        prior = prior_scores(self.judge.priors[name], truth, self.judge.prior_limits[name])
        if prior is not None:
            self.references["train_prior"].add(row, finding, prior)
        if "evidence" in outputs.extras:
            if self.evidence is None:
                self.evidence = PairScores(*self.supervised.shape)
            evidence = outputs.own.extras["evidence"][offset, columns]
            # evidence of one half is none at all: the film adds nothing to the prior there
            scores = score_union(evidence, truth, [0.5] * len(columns))
            self.evidence.add(row, finding, scores)

    def add_shuffled(self, generator: np.random.Generator) -> None:
        """Score every map on other images with the finding, once all maps are there."""
        for finding, name in enumerate(self.data.findings):
            rows = [row for row, column in self.positive_maps if column == finding]
            truths = (
                self.data.coverage(int(self.indices[row]), name, self.data.size) for row in rows
            )
            maps = [self.positive_maps[row, finding] for row in rows]
            scores = shuffled(maps, truths, self.judge.map_limits[name], generator)
            for row, row_scores in zip(rows, scores or [], strict=False):
                self.references["shuffled"].add(row, finding, row_scores)

    def part(self) -> "_Part":
        """What was collected, for another process."""
        cases = self.cases
        return _Part(
            cases.image_ids,
            cases.scores,
            cases.present,
            self.fp_area,
            self.own,
            self.references,
            self.evidence,
            self.positive_maps,
        )

    def take(self, part: "_Part", rows: np.ndarray) -> None:
        """Take what another process collected of the images that are `rows` here."""
        self.cases.scores[rows] = part.scores
        self.cases.present[rows] = part.present
        self.fp_area[rows] = part.fp_area
        self.own.take(part.own, rows)
        for name, scores in part.references.items():
            self.references[name].take(scores, rows)
        if part.evidence is not None:
            if self.evidence is None:
                self.evidence = PairScores(*self.supervised.shape)
            self.evidence.take(part.evidence, rows)
        for (row, finding), maps in part.positive_maps.items():
            self.positive_maps[int(rows[row]), finding] = maps

    def as_cases(self, scores: PairScores, why_unscored: str) -> Cases:
        """The same images with other maps' metrics."""
        one = self.cases
        return Cases(
            one.image_ids,
            one.patient_ids,
            one.findings,
            one.labels,
            one.scores,
            one.present,
            one.n_regions,
            Tables(scores.makers()),
            why_unscored,
        )


def _joined(
    judge: MergedClassifier, data: PreparedData, indices: np.ndarray, parts: Sequence["_Part"]
) -> "_Collected":
    """What all processes collected, put together by image id.

    Raises:
        DataError: an image was scored by no process, or by two.
    """
    whole = _Collected(judge, data, indices)
    row_of = {image_id: row for row, image_id in enumerate(whole.cases.image_ids)}
    scored = [image_id for part in parts for image_id in part.image_ids]
    if len(scored) != len(row_of) or set(scored) != set(row_of):
        raise DataError(
            f"{data.folder}: the processes scored {len(scored)} images, {len(set(scored))} of them "
            f"distinct and {len(row_of.keys() & set(scored))} of the {len(row_of)} of the split; "
            "give every process the same data"
        )
    for part in parts:
        rows = np.array([row_of[image_id] for image_id in part.image_ids], dtype=np.int64)
        whole.take(part, rows)
    return whole


def has_splits_of(card: ModelCard, data: PreparedData) -> bool:
    """Whether the model was trained on these images in these splits, as prepared now or before.

    Other labels, regions or texts make another data set of the same images, but no image moves.
    """
    if data.fingerprint == card.data_fingerprint:
        return True
    if splits_sha256(data.image_ids, data.splits) != card.splits_sha256:
        return False
    seen = np.flatnonzero(np.isin(data.splits, ("train", "val")))
    patients = patient_hashes(data.patients_of, [data.patient_ids[index] for index in seen])
    return bool(np.isin(patients, card.seen_patients).all())


def refuse_seen_patients(card: ModelCard, data: PreparedData, split: str) -> None:
    """Stop where the model was trained on patients, or image files, of the split.

    The same data set split anew would show the model its own training patients as test; files are
    known again under any name of the set and of the patient.

    Raises:
        DataError: says how many patients or files.
    """
    if has_splits_of(card, data):
        return
    indices = data.indices(split)
    files = np.intersect1d(data.file_hashes[indices], card.seen_files)
    if files.any():
        raise DataError(
            f"{data.folder}: {np.count_nonzero(files)} image files of split {split!r} were in the "
            f"training or validation split of this model, which was trained on {card.data_name}; "
            "evaluate it on the data it was trained on, or with the same splits"
        )
    ids = [data.patient_ids[index] for index in indices]
    # models from before sets could share patients know them within the set
    known = {*patient_hashes(data.patients_of, ids), *patient_hashes(data.name, ids)}
    seen = known.intersection(card.seen_patients)
    if seen:
        raise DataError(
            f"{data.folder}: {len(seen)} patients of split {split!r} were in the training or "
            "validation split of this model; evaluate it on the data it was trained on, or with "
            f"the same splits. Patients are known by their ids within {data.patients_of!r}: if "
            "these are other people with the same ids, prepare the sets of your own under names "
            "that differ, with --name"
        )


def _block(cases: Cases, draws: int, seed: int) -> dict[str, Any]:
    findings, macro = summarise(cases, REFERENCE_METRICS, draws=draws, seed=seed)
    return {
        "macro": _json(macro),
        "findings": {name: _json(values) for name, values in findings.items()},
    }


def _json(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in estimates.items()}


def _protocol(
    card: ModelCard,
    data: PreparedData,
    agreement: Agreement,
    label_map: LabelMap,
    split: str,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    merges = any(len(one.model) > 1 for one in agreement.shared)
    return {
        "split": split,
        "images": len(data.indices(split)),
        "map_policy": "unit domain (simplex maps by r/(1+r), r = N·A), bilinear to "
        f"{data.size} px, against the exact covered share of each pixel",
        "threshold_policy": (ZERO_SHOT_POLICY if card.zero_shot else THRESHOLD_POLICY)
        + (MERGED_POLICY if merges else ""),
        "bootstrap": {"unit": "patient", "draws": draws, "seed": seed, "interval": "95 %"},
        "zero_shot": card.zero_shot,
        "query_context": card.query_context,
        "map_domain": card.map_domain,
        "shuffles": SHUFFLES,
        "data": {
            "folder": str(data.folder.resolve()),
            "name": data.name,
            "fingerprint": data.fingerprint,
        },
        "trained_on": {
            "name": card.data_name,
            "fingerprint": card.data_fingerprint,
            "splits_sha256": card.splits_sha256,
        },
        "label_map": {"source": label_map.source, "sha256": label_map.sha256},
        "shared_findings": {
            one.name: {
                "model": list(one.model),
                "data": list(one.data.parts),
                "never_assessed": list(one.data.missing),
            }
            for one in agreement.shared
        },
        "findings_not_evaluated": {
            "only_in_model": list(agreement.unmatched),
            "only_in_data": list(agreement.untrained),
        },
        "version": __version__,
    }


def _write_maps(path: Path, maps: np.ndarray, cases: Cases) -> None:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        maps=maps.astype(np.float32),
        images=np.array(cases.image_ids),
        findings=np.array(cases.findings),
        domain=np.array("unit"),
    )
    write_bytes(path, stream.getvalue())
