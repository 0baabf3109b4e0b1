"""Box metrics against pycocotools and naive counts."""

import contextlib
import io

import numpy as np
import pytest
from monai.data.box_utils import box_iou
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dwarf_cxr.evaluation.boxes import (
    METRICS,
    THRESHOLDS,
    BoxCases,
    average_precision,
    iou_matrix,
    matched,
    summarise_boxes,
)


def random_boxes(rng, count: int) -> np.ndarray:
    low = rng.integers(0, 40, (count, 2))
    return np.concatenate([low, low + rng.integers(4, 30, (count, 2))], axis=1).astype(float)


def made(seed: int, films: int = 25, ties: bool = False) -> BoxCases:
    """Films with none to three truths and none to six boxes, some of them moved truths."""
    rng = np.random.default_rng(seed)
    predicted, scores, truths = [], [], []
    for _ in range(films):
        own = random_boxes(rng, rng.integers(0, 4))
        near = own[rng.random(len(own)) < 0.8] + rng.integers(-5, 6, 4)
        near = near[(near[:, 2:] > near[:, :2]).all(axis=1)]
        boxes = np.concatenate([near, near + 1, random_boxes(rng, rng.integers(0, 3))])
        boxes = rng.permutation(boxes)
        truths.append(own)
        predicted.append(boxes)
        drawn = rng.random(len(boxes))
        scores.append(np.round(drawn, 1) if ties else drawn)
    patients = tuple(f"p{film // 2}" for film in range(films))
    return BoxCases(patients, tuple(predicted), tuple(scores), tuple(truths))


def xywh(box: np.ndarray) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def coco_precision(cases: BoxCases) -> list[float]:
    """Average precision at each threshold, by pycocotools."""
    annotations, results = [], []
    for film, truths in enumerate(cases.truths):
        for box in truths:
            sides = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": film,
                    "category_id": 1,
                    "bbox": sides,
                    "area": sides[2] * sides[3],
                    "iscrowd": 0,
                }
            )
        for box, score in zip(cases.predicted[film], cases.scores[film], strict=True):
            results.append(
                {"image_id": film, "category_id": 1, "bbox": xywh(box), "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": film} for film in range(len(cases.truths))],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "Mass"}],
            "info": {},
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.iouThrs = np.array(THRESHOLDS)
        judge.evaluate()
        judge.accumulate()
    # threshold, recall level, category, any area, most detections
    return judge.eval["precision"][:, :, 0, 0, -1].mean(axis=1).tolist()


def estimates(cases: BoxCases, draws: int = 0) -> dict:
    return summarise_boxes([cases], cases.patient_ids, draws=draws, seed=0)[0][0]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_cocos(seed, ties):
    cases = made(seed, ties=ties)
    assert any(not len(one) for one in cases.truths)
    assert any(not len(one) for one in cases.predicted)
    found = estimates(cases)
    mine = [found[f"ap_{percent}"].value for percent in (25, 50, 75)]
    assert mine == pytest.approx(coco_precision(cases), abs=1e-9)
    assert len(set(mine)) > 1


@pytest.mark.parametrize("seed", range(3))
def test_recall_and_hits_are_counts(seed):
    cases = made(seed + 10)
    found = estimates(cases)
    for percent in (25, 50, 75):
        truths = reached = films = hit = first = 0
        for boxes, scores, own in zip(cases.predicted, cases.scores, cases.truths, strict=True):
            films += len(own) > 0
            overlap = box_iou(own, boxes) * 100 if len(own) and len(boxes) else None
            truths += len(own)
            if overlap is not None:
                best = overlap.max(axis=1) >= percent
                reached += int(best.sum())
                hit += bool(best.any())
                first += bool((overlap[:, int(np.argmax(scores))] >= percent).any())
        assert found[f"recall_{percent}"].value == pytest.approx(reached / truths)
        assert found[f"recall_{percent}"].n == truths
        assert found[f"image_hit_{percent}"].value == pytest.approx(hit / films)
        assert found[f"image_hit_top1_{percent}"].value == pytest.approx(first / films)
        assert found[f"image_hit_top1_{percent}"].n == films
        assert found[f"ap_{percent}"].n == 25


def test_overlap_by_hand():
    boxes = np.array([[0.0, 0, 4, 2], [1, 1, 1, 1]])
    others = np.array([[2.0, 0, 6, 2], [0, 0, 4, 2], [1, 1, 1, 1]])
    assert iou_matrix(boxes, others).tolist() == [[pytest.approx(1 / 3), 1, 0], [0, 0, 0]]
    assert iou_matrix(boxes[:0], others).shape == (0, 3)
    assert iou_matrix(boxes, others[:0]).shape == (2, 0)


def test_a_truth_is_found_once_by_the_best_scored():
    overlap = np.array([[0.6, 0.55], [0.9, 0.1], [0.8, 0.2]])
    assert matched(overlap, np.array([1, 0, 2]), 0.5).tolist() == [True, True, False]
    assert matched(overlap, np.array([0, 1, 2]), 0.5).tolist() == [True, False, False]


def test_average_precision_by_hand():
    # right, wrong, right of 2: precision 1 up to a recall of .5 (51 levels), 2/3 after (50)
    hits = np.array([1.0, 0, 1])
    assert average_precision(hits, 1 - hits, 2.0) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(hits[:0], hits[:0], 2.0) == 0
    assert np.isnan(average_precision(hits, 1 - hits, 0.0))


def test_a_bootstrap_draw_is_the_metric_of_the_drawn_films():
    cases = made(30, films=8)
    drawn = summarise_boxes([cases], cases.patient_ids, draws=40, seed=3)[0][0]
    generator = np.random.default_rng(3)
    values = {metric: [] for metric in METRICS}
    for counts in generator.multinomial(4, np.full(4, 1 / 4), size=40):
        rows = [film for film in range(8) for _ in range(counts[film // 2])]
        again = BoxCases(
            tuple(cases.patient_ids[row] for row in rows),
            tuple(cases.predicted[row] for row in rows),
            tuple(cases.scores[row] for row in rows),
            tuple(cases.truths[row] for row in rows),
        )
        for metric, estimate in estimates(again).items():
            values[metric].append(np.nan if estimate.value is None else estimate.value)
    for metric in METRICS:
        if metric.startswith("ap"):
            # twice the same film is a draw of one weight here, and two ranks there
            continue
        low, high = np.nanpercentile(values[metric], (2.5, 97.5))
        assert drawn[metric].low == pytest.approx(low)
        assert drawn[metric].high == pytest.approx(high)
    for percent in (25, 50, 75):
        one = drawn[f"ap_{percent}"]
        assert one.low < one.value < one.high
        low, high = np.nanpercentile(values[f"ap_{percent}"], (2.5, 97.5))
        assert (one.low, one.high) == pytest.approx((low, high), abs=0.1)


def test_what_is_not_defined_says_why():
    none = tuple(np.zeros((0, 4)) for _ in range(3))
    boxes = (np.array([[0.0, 0, 1, 1]]), *none[1:])
    cases = BoxCases(("a", "b", "c"), boxes, tuple(np.ones(len(one)) for one in boxes), none)
    empty = BoxCases((), (), (), ())
    findings, macro = summarise_boxes(
        [made(1, films=3), cases, empty], ("p0", "p1", "a", "b", "c"), draws=5, seed=0
    )
    assert findings[1]["recall_50"].to_json() == {
        "value": None,
        "reason": "no image with the finding has a box",
    }
    assert findings[2]["ap_50"].value is None
    assert macro["recall_25"].value == findings[0]["recall_25"].value
    assert macro["recall_25"].n == 1
