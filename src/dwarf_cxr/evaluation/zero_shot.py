"""Models that were not trained on the data they are judged on, as weights of others are.

Such a model is asked exactly the findings of the data. Like every model it is judged by thresholds
from a validation split and beside a train prior; having none of its own, it gets those of the data.
"""

from pathlib import Path

from dwarf_cxr.data.label_map import LabelMap, load_label_map
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.evaluation.calibration import fit_card
from dwarf_cxr.evaluation.evaluate import has_splits_of, refuse_seen_patients
from dwarf_cxr.evaluation.references import mean_coverage
from dwarf_cxr.findings import DESCRIPTIONS
from dwarf_cxr.models.opening import open_model
from dwarf_cxr.models.outputs import Classifier, ModelCard, ZeroShotClassifier, method_of
from dwarf_cxr.progress import Report


def load_for(run: Path, data: PreparedData) -> Classifier:
    """The model of a run as `judge_for` has it."""
    return judge_for(open_model(run), data)


def judge_for(
    model: Classifier,
    data: PreparedData,
    label_map: LabelMap | None = None,
    report: Report | None = None,
) -> Classifier:
    """The model as it was trained; an imported one, which has no card, calibrated on `data`.

    Raises:
        CheckpointError: no card, and no model that could be asked for other findings.
    """
    if model.card is not None:
        return model
    if not isinstance(model, ZeroShotClassifier):
        raise CheckpointError("the model has no card (thresholds, prior); train it first")
    return calibrated(model, data, method=method_of(model), label_map=label_map, report=report)


def calibrated(
    model: ZeroShotClassifier,
    data: PreparedData,
    *,
    method: str,
    descriptions: bool = False,
    label_map: LabelMap | None = None,
    report: Report | None = None,
) -> ZeroShotClassifier:
    """`model` asked the findings of `data`, with thresholds and prior from its splits.

    A model that was trained, by `dwarf pretrain` say, is judged on no film or patient of that.

    Raises:
        CheckpointError: the model wants images of another size.
        DataError: it was trained on patients or films of the validation or test split.
    """
    if model.card is not None:
        for split in ("val", "test"):
            refuse_seen_patients(model.card, data, split)
    if model.image_size != data.size:
        raise CheckpointError(
            f"the model wants images of {model.image_size} px, {data.folder} has {data.size} px; "
            f"prepare the data with --size {model.image_size}"
        )
    asked = model.asking(words_for(model, data, label_map, descriptions=descriptions))
    val = data.indices("val")
    if report is not None:
        report("fitting thresholds on validation", 0, 1)
    outputs = asked.predict(data.pixels[val])
    prior = mean_coverage(data, data.indices("train"))
    asked.card = fit_card(
        asked,
        data,
        outputs,
        prior,
        method=method,
        zero_shot=model.card is None or not _trained_on(model.card, data),
        started_from=model.card,
    )
    return asked


def _trained_on(card: ModelCard, data: PreparedData) -> bool:
    """Whether weights learned from patients or films of the data, so that nothing is zero-shot."""
    if card.zero_shot:
        return False
    if has_splits_of(card, data):
        return True
    try:
        refuse_seen_patients(card, data, "train")
    except DataError:
        return True
    return False


def words_for(
    model: Classifier, data: PreparedData, label_map: LabelMap | None, *, descriptions: bool
) -> dict[str, str]:
    """What each finding of `data` is asked with.

    A finding that the model knows under its shared name is asked as the model's own; with
    `descriptions` in a sentence, where there is one; any other by the data's name.
    """
    names = (load_label_map() if label_map is None else label_map).names_of(data.name)
    words = {}
    for finding in data.findings:
        shown = names.get(finding, (finding,))
        shared = shown[0] if len(shown) == 1 else finding
        known = shared if shared in model.findings else finding
        words[finding] = DESCRIPTIONS.get(shared, known) if descriptions else known
    return words
