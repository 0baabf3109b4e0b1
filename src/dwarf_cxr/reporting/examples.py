"""Real films for a report: good, middling and bad cases of every finding.

Each is shown with its true region and with the map of every method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from dwarf_cxr.data.harmonise import harmonise_data
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError, DwarfError
from dwarf_cxr.evaluation.boxes import iou_matrix
from dwarf_cxr.evaluation.detections import BOXES_FILE, read_boxes, true_boxes
from dwarf_cxr.evaluation.maps import any_marks
from dwarf_cxr.evaluation.zero_shot import load_for
from dwarf_cxr.models.merged import MergedClassifier, MergedOutputs
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.overlay import (
    TRUTH,
    Picture,
    boxes_on_film,
    data_uri,
    enlarged,
    film_picture,
    map_on_film,
    outlined,
)
from dwarf_cxr.reporting.runs import EvaluatedRun

MOST_BOXES = 4
"""A detector's boxes on a picture: more could not be told apart."""
SIDE = 420
"""Longer side of a picture in pixels: sharp at half of it on a dense screen."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    lines: tuple[str, ...]
    image: str
    """Data URI."""
    alternative: str
    """What it shows, in words."""


@dataclass(frozen=True)
class Example:
    """One film with a finding, and what every run made of it."""

    image_id: str
    rank: str
    width: int
    height: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class FindingExamples:
    """The films shown for a finding, or the reason why there are none."""

    finding: str
    count: int
    """How many films of the split have the finding and a region of it."""
    examples: tuple[Example, ...]
    reason: str = ""


@dataclass(frozen=True)
class Gallery:
    """All examples of a report; without any, `problem` says why."""

    findings: tuple[FindingExamples, ...]
    ranked_by: str
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """What one run's model said of chosen films."""

    run: EvaluatedRun
    judge: MergedClassifier
    outputs: MergedOutputs
    rows: Mapping[str, int]
    """Row in `outputs` of each image id."""
    boxes: Mapping[tuple[str, str], Float32[np.ndarray, "box 5"]] | None = None
    """Of a detector, by image id and finding: corners in pixels of the original image, score."""

    def marked(
        self, image_id: str, finding: str, film: Picture
    ) -> Bool[np.ndarray, "height width"] | None:
        """What the finding's map marks on `film`, at the validation's threshold; None without."""
        limits = self.judge.map_limits[finding]
        if limits is None:
            return None
        own = self.outputs.own.maps[self.rows[image_id], self.judge.columns[finding]]
        return any_marks([enlarged(one, film) for one in own], limits)


def make_gallery(
    runs: Sequence[EvaluatedRun],
    data: Path | None,
    cases_per_finding: int,
    progress: Report | None = None,
) -> Gallery:
    """Choose films by the first run's Dice and draw every run's map on them.

    Data or models that are not where the evaluation found them leave the gallery empty, with a
    problem that says so.

    Raises:
        DataError: `data` is given but is no prepared data set, or not the one that was evaluated.
    """
    first = runs[0]
    metric, label = _ranking(first)
    ranked_by = f"{label} of {first.name}"
    chosen = {
        finding: choose_cases(first, finding, metric, cases_per_finding)
        for finding in first.metrics["findings_order"]
    }
    wanted = list(dict.fromkeys(row for cases in chosen.values() for row, _ in cases))
    image_ids = [first.cases.image_ids[row] for row in wanted]
    try:
        prepared = evaluated_data(first, data)
        seen = []
        for done, run in enumerate(runs):
            if progress is not None:
                progress(f"maps of {run.name}", done, len(runs))
            seen.append(ask(run, prepared, image_ids))
    except DwarfError as problem:
        if data is not None and isinstance(problem, DataError):
            raise
        return Gallery((), ranked_by, str(problem))
    sections = tuple(
        _section(first, finding, cases, prepared, seen, metric) for finding, cases in chosen.items()
    )
    return Gallery(sections, ranked_by)


def choose_cases(run: EvaluatedRun, finding: str, metric: str, count: int) -> list[tuple[int, str]]:
    """Rows of `run.cases` from best to worst, evenly spaced, with their rank in words.

    Three are the best, the median and the worst.
    """
    column = run.cases.findings.index(finding)
    values = run.cases.maps[metric][:, column]
    scored = np.flatnonzero(~np.isnan(values))
    order = scored[np.argsort(-values[scored], kind="stable")]
    last = len(order) - 1
    if last < 0 or count < 1:
        return []
    places = [last / 2] if count == 1 else np.linspace(0, last, min(count, len(order)))
    ranks = list(dict.fromkeys(int(place) for place in places))
    return [(int(order[rank]), _rank_words(rank, len(order), count)) for rank in ranks]


def _rank_words(rank: int, total: int, count: int) -> str:
    place = f"rank {rank + 1} of {total}"
    if total == 1:
        return "The only case"
    if rank == 0 and count > 1:
        return f"Best case ({place})"
    if rank == total - 1:
        return f"Worst case ({place})"
    if rank == (total - 1) // 2 and count % 2:
        return f"Median case ({place})"
    return place.capitalize()


def _ranking(run: EvaluatedRun) -> tuple[str, str]:
    """The column that cases are ranked by: Dice, or where no threshold was fitted the oracle's."""
    for metric, label in (("dice", "Dice"), ("max_dice", "max Dice (oracle)")):
        if not np.isnan(run.cases.maps[metric]).all():
            return metric, label
    return "max_dice", "max Dice (oracle)"


def evaluated_data(run: EvaluatedRun, data: Path | None) -> PreparedData:
    """The data that a run was evaluated on, with the findings that it was evaluated for.

    Raises:
        DataError: `data`, or without it what lies where the evaluation found the data, is no
            prepared data set or holds other data.
    """
    prepared = PreparedData.open(Path(run.protocol["data"]["folder"]) if data is None else data)
    if prepared.fingerprint != run.fingerprint:
        raise DataError(
            f"{prepared.folder}: holds other data (fingerprint {prepared.fingerprint[:12]}…) than "
            f"was evaluated ({run.fingerprint[:12]}…); give the evaluated data with --data"
        )
    return harmonise_data(prepared, run.data_unions)


def ask(run: EvaluatedRun, data: PreparedData, image_ids: Sequence[str]) -> Seen:
    """What the run's model says of these films, now; a detector's boxes are those evaluated.

    Raises:
        CheckpointError: the model is not there, or damaged.
        DataError: the file of boxes is damaged.
    """
    model = load_for(run.folder, data)
    index = {name: place for place, name in enumerate(data.image_ids)}
    places = np.array([index[name] for name in image_ids], dtype=np.int64)
    judge = MergedClassifier(model, run.model_parts)
    outputs = judge.predict(data.pixels[places])
    rows = {name: row for row, name in enumerate(image_ids)}
    file = run.evaluation / BOXES_FILE
    return Seen(run, judge, outputs, rows, read_boxes(file) if file.is_file() else None)


def _section(
    first: EvaluatedRun,
    finding: str,
    cases: Sequence[tuple[int, str]],
    data: PreparedData,
    seen: Sequence[Seen],
    metric: str,
) -> FindingExamples:
    column = first.cases.findings.index(finding)
    count = int((~np.isnan(first.cases.maps[metric][:, column])).sum())
    if not cases:
        reason = first.cases.reason("dice", column)
        return FindingExamples(finding, count, (), f"Nothing to show: {reason}.")
    examples = tuple(
        _example(data, first.cases.image_ids[row], finding, rank, seen) for row, rank in cases
    )
    return FindingExamples(finding, count, examples)


def _example(
    data: PreparedData, image_id: str, finding: str, rank: str, seen: Sequence[Seen]
) -> Example:
    index = data.image_ids.index(image_id)
    frame = _frame_of(data, index)
    film, truth = film_and_truth(data, index, finding)
    panels = [
        Panel(
            "Film and region",
            ("",),
            data_uri(outlined(film, truth, TRUTH)),
            f"Film {image_id} with the true region of {finding} outlined",
        )
    ]
    for one in seen:
        if finding in one.judge.findings:
            panels += _run_panels(film, truth, one, image_id, finding)
            if one.boxes is not None:
                panels.append(_boxes_panel(data, index, film, one, finding))
    return Example(image_id, rank, *frame, tuple(panels))


def film_and_truth(
    data: PreparedData, index: int, finding: str
) -> tuple[Picture, Bool[np.ndarray, "height width"]]:
    """A film in its proportions, and where on it the finding's true region is."""
    frame = _frame_of(data, index)
    truth = true_pixels(data.coverage(index, finding, SIDE), frame)
    return film_picture(np.asarray(data.pixels[index]), frame), truth


def true_pixels(
    coverage: Float32[np.ndarray, "side side"], frame: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """Where a picture of `frame` (width, height) pixels, none longer than `side`, shows a region.

    Pixels at least half covered; of a region smaller than a pixel, the most covered one.
    """
    shares = cv2.resize(coverage, frame, interpolation=cv2.INTER_AREA)
    return shares >= min(0.5, float(shares.max()))


def _run_panels(
    film: Picture, truth: np.ndarray, seen: Seen, image_id: str, finding: str
) -> list[Panel]:
    row, column = seen.rows[image_id], seen.judge.findings.index(finding)
    extras = seen.outputs.extras
    name = seen.run.name

    def panel(
        title: str, lines: tuple[str, ...], map_: np.ndarray, marked: np.ndarray | None = None
    ) -> Panel:
        picture = map_on_film(film, map_, truth, marked)
        return Panel(title, lines, data_uri(picture), f"{title} for {finding} on film {image_id}")

    marked = seen.marked(image_id, finding, film)
    lines = _case_lines(seen, image_id, finding)
    panels = [panel(f"Map of {name}", lines, seen.outputs.maps[row, column], marked)]
    if "prior" in extras and "evidence" in extras:
        panels.append(panel(f"Prior of {name}", ("known before looking",), extras["prior"][column]))
        panels.append(
            panel(
                f"Evidence of {name}",
                ("of this film; 0.5 adds nothing",),
                extras["evidence"][row, column],
            )
        )
    return panels


def _boxes_panel(data: PreparedData, index: int, film: Picture, seen: Seen, finding: str) -> Panel:
    """The boxes that `dwarf predict` would give, the best few of them; the best one without any."""
    image_id, name = data.image_ids[index], seen.run.name
    assert seen.boxes is not None
    found = seen.boxes.get((image_id, finding), np.zeros((0, 5), dtype=np.float32))
    truths = true_boxes(data, index, finding)
    limits = seen.judge.map_limits[finding]
    # of a finding made of several, which of them a box is of is not written down
    reaching = found if limits is None else found[found[:, 4] >= min(limits)]
    shown = reaching[:MOST_BOXES] if len(reaching) else found[:1]
    height, width = film.shape[:2]
    scale = np.array([width / data.widths[index], height / data.heights[index]] * 2)
    picture = boxes_on_film(film, truths * scale, shown[:, :4] * scale, shown[:, 4])
    title = f"Boxes of {name}"
    return Panel(
        title,
        _box_lines(found, reaching, shown, truths, limited=limits is not None),
        data_uri(picture),
        f"{title} for {finding} on film {image_id}, with the true boxes",
    )


def _box_lines(
    found: np.ndarray, reaching: np.ndarray, shown: np.ndarray, truths: np.ndarray, *, limited: bool
) -> tuple[str, ...]:
    if not len(found):
        return ("no box",)
    if not len(reaching):
        count = "no box reaches the threshold: the best one"
    else:
        best = f"the best {len(shown)} of " if len(shown) < len(reaching) else ""
        many = f"{len(reaching)} box{'' if len(reaching) == 1 else 'es'}"
        count = f"{best}{many}{' at the threshold' if limited else ''}"
    overlaps = iou_matrix(shown[:, :4], truths)
    return count, f"largest IoU {overlaps.max(initial=0.0):.2f}"


def _case_lines(seen: Seen, image_id: str, finding: str) -> tuple[str, ...]:
    place = seen.run.case(image_id, finding)
    if place is None:
        return ("not evaluated",)
    cases = seen.run.cases
    dice, oracle = cases.maps["dice"][place], cases.maps["max_dice"][place]
    overlap = f"Dice {dice:.3f}" if not np.isnan(dice) else f"max Dice (oracle) {oracle:.3f}"
    decision = {1.0: ", called present", 0.0: ", called absent"}.get(
        float(cases.present[place]), ""
    )
    return overlap, f"score {cases.scores[place]:.3f}{decision}"


def _frame_of(data: PreparedData, index: int) -> tuple[int, int]:
    """Width and height of the picture of a film: its proportions, `SIDE` the longer side."""
    width, height = int(data.widths[index]), int(data.heights[index])
    factor = SIDE / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))
