"""A model's card: what validation and training split of its data say about it."""

import numpy as np

from dwarf_cxr.data.splits import patient_hashes, splits_sha256
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.evaluate import fit_card_thresholds
from dwarf_cxr.models.outputs import ModelCard, Outputs, StatedClassifier


def fit_card(
    model: StatedClassifier,
    data: PreparedData,
    outputs: Outputs,
    train_prior: np.ndarray,
    *,
    method: str,
    zero_shot: bool = False,
    started_from: ModelCard | None = None,
) -> ModelCard:
    """The card of `model` on `data`, with thresholds fitted on its validation split.

    Args:
        outputs: of the validation images, in order.
        train_prior: (C, size, size) mean coverage over training positives.
        started_from: of the model that training started from; what that one saw, this one has.
    """
    val = data.indices("val")
    score, maps, prior = fit_card_thresholds(
        outputs.probability, outputs.maps, data, val, train_prior
    )
    seen = np.isin(data.splits, ("train", "val"))
    seen_patients = patient_hashes(
        data.patients_of, [data.patient_ids[index] for index in np.flatnonzero(seen)]
    )
    seen_files = np.unique(data.file_hashes[seen])
    if started_from is not None:
        seen_patients = np.union1d(seen_patients, started_from.seen_patients)
        seen_files = np.union1d(seen_files, started_from.seen_files)
    return ModelCard(
        method=method,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        splits_sha256=splits_sha256(data.image_ids, data.splits),
        query_context=model.query_context,
        map_domain=model.map_domain,
        score_thresholds=score,
        map_thresholds=maps,
        prior_thresholds=prior,
        train_prior=train_prior,
        seen_patients=seen_patients,
        harmonised=None
        if data.harmonised is None
        else {name: list(shown) for name, shown in data.harmonised.items()},
        seen_files=seen_files,
        zero_shot=zero_shot,
    )
