"""A reproduction in plain words, made from its numbers alone."""

from collections.abc import Sequence

from dwarf_cxr.evaluation.bootstrap import bounds
from dwarf_cxr.reporting.tables import ENOUGH_SEEDS
from dwarf_cxr.reproduce.plan import PlannedRow
from dwarf_cxr.reproduce.recipes import published_for
from dwarf_cxr.reproduce.results import RowResult
from dwarf_cxr.reproduce.statistics import Summary
from dwarf_cxr.reproduce.tables import Difference, shown, verdict_of

JUDGED = (("auc", "AUC"), ("dice", "Dice"), ("hit_rate", "hit rate"))


def verdict_sentences(results: Sequence[RowResult], differences: Sequence[Difference]) -> list[str]:
    """What the differences show, whether the paper's order is found again, and the train prior."""
    sentences = []
    for one in differences:
        sentences.append(_difference_sentence(one))
        again = _order_sentence(one)
        if again:
            sentences.append(again)
    return [*sentences, *_prior_sentences(results)]


def cautions(rows: Sequence[PlannedRow], results: Sequence[RowResult], scale: str) -> list[str]:
    """What limits the conclusions."""
    found = []
    if scale == "tiny":
        found.append("These are tiny trainings of a few steps: the numbers mean nothing.")
    trained = [result for result in results if not result.trainings[0].zero_shot]
    if any(result.seeds < ENOUGH_SEEDS for result in trained):
        found.append(
            f"Some rows have fewer than {ENOUGH_SEEDS} trainings: that supports no claim about a "
            "method, since another seed may turn the order."
        )
    done = {training.folder for result in results for training in result.trainings}
    missing = [
        training.folder.name
        for row in rows
        for training in row.trainings
        if training.folder not in done
    ]
    if missing:
        found.append(f"Not trained or not evaluated yet: {', '.join(missing)}.")
    return found


def _difference_sentence(one: Difference) -> str:
    parts = [
        f"{label} {_signed(one.by_metric[key])}, {_meaning(one, key)}" for key, label in JUDGED
    ]
    return f"{one.title}: {'; '.join(parts)}."


def _meaning(one: Difference, key: str) -> str:
    summary = one.by_metric[key]
    if summary.value is None:
        return "not to be compared"
    words = {
        "better": "the interval excludes 0: higher",
        "worse": "the interval excludes 0: lower",
        "not clear": (
            "there is no interval: not shown to differ"
            if bounds(summary.low, summary.high) is None
            else "the interval does not exclude 0: not shown to differ"
        ),
    }[verdict_of(summary)]
    if summary.seeds < 2 or not summary.excludes_zero:
        return words
    own, other = (_per_seed(result, key) for result in (one.result, one.baseline))
    apart = min(own) > max(other) or max(own) < min(other)
    return words + (
        ", and no training of one is between those of the other"
        if apart
        else ", though single trainings overlap"
    )


def _per_seed(result: RowResult, key: str) -> list[float]:
    means = result.means[key]
    defined = ~(means.points != means.points).any(axis=0)
    return means.points[:, defined].mean(axis=1).tolist()


def _order_sentence(one: Difference) -> str | None:
    """Whether the order of the published Dice, or else AUC, is found again."""
    published = [
        published_for(result.planned.row, result.planned.data_name)
        for result in (one.result, one.baseline)
    ]
    if published[0] is None or published[1] is None:
        return None
    for key, label in (("dice", "Dice"), ("auc", "AUC")):
        values = [getattr(each.best, key) for each in published if each is not None]
        if None in values or values[0] == values[1]:
            continue
        claim = 1 if values[0] > values[1] else -1
        summary = one.by_metric[key]
        if summary.value is None:
            return None
        said = f"The paper has best {label} {values[0]:.3f} against {values[1]:.3f}"
        if not summary.excludes_zero:
            lead = values[0] - values[1]
            ends = bounds(summary.low, summary.high)
            inside = ends is None or ends[0] <= lead <= ends[1]
            size = "" if inside else f", and a difference of {lead:+.3f} lies outside the interval"
            return f"{said}; that order is neither confirmed nor refuted here{size}."
        if summary.value * claim > 0:
            return f"{said}; the same order is found here."
        return f"{said}; the opposite order is found here."
    return None


def _prior_sentences(results: Sequence[RowResult]) -> list[str]:
    apart, overlapping, unbounded, below = [], [], [], []
    for result in results:
        own, prior = result.honest("dice"), result.reference("train_prior", "dice")
        if own.value is None or prior.value is None:
            continue
        words = f"{result.planned.title} ({own.value:.3f} against {prior.value:.3f})"
        if own.value <= prior.value:
            below.append(words)
        elif (ends := bounds(own.low, own.high)) is None or (
            fixed := bounds(prior.low, prior.high)
        ) is None:
            unbounded.append(words)
        elif ends[0] <= fixed[1]:
            overlapping.append(words)
        else:
            apart.append(words)
    sentences = []
    for group, said in (
        (
            apart,
            "Dice above the train prior's, a fixed map that never looks at the film, with "
            "intervals apart",
        ),
        (
            overlapping,
            "Dice above the train prior's, but with overlapping intervals, so that it is "
            "not shown to look better than a fixed map",
        ),
        (
            unbounded,
            "Dice above the train prior's, but one of the two has no interval, so that it is not "
            "shown to look better than a fixed map",
        ),
        (below, "Dice not above the train prior's, a fixed map that never looks at the film"),
    ):
        if group:
            sentences.append(f"{said}: {'; '.join(group)}.")
    return sentences


def _signed(summary: Summary) -> str:
    if summary.value is None:
        return "undefined"
    cell = shown(summary, signed=True)
    return f"{cell.text} {cell.interval}"
