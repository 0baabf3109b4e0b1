"""Known boxes of a detector, on films whose pixels are not the model's."""

import csv
import dataclasses

import numpy as np
import pytest

from dwarf_cxr.data.records import Box, Region
from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.detections import (
    evaluate_detections,
    read_box_cases,
    read_boxes,
    true_boxes,
)
from tests.tiny import FINDINGS, SIZE, write_data

DRAWN = Box(20.0, 30.0, 60.0, 90.0)
"""In original pixels, twice as wide and three times as high as the model's image."""


COLUMNS = ("Other", "Nodule", "Mass")


def said(wrong_score: float) -> Detections:
    """The drawn box of Mass with a score of .9, and a wrong one with another score."""
    boxes = np.array([[10, 10, 30, 30], [40, 40, 50, 50]], dtype=np.float32)
    scores = np.array([0.9, wrong_score], dtype=np.float32)
    return Detections(boxes, scores, np.full(2, COLUMNS.index("Mass")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven films of two patients each: Mass is drawn on 0 and 1, absent on 2, unknown on 3 and 4.

    On film 3 it is present without a region, on film 4 it was not assessed.
    """
    made = write_data(tmp_path_factory.mktemp("oracle") / "data")
    labels = np.zeros_like(made.labels)
    labels[[0, 1, 3], 0] = 1
    labels[4, 0] = np.nan
    regions = {film: (Region("Mass", DRAWN),) for film in (0, 1)}
    return dataclasses.replace(
        made,
        labels=labels,
        regions_by_image=regions,
        widths=made.widths * 2,
        heights=made.heights * 3,
    )


def evaluated(data, tmp_path, wrong_score: float, films=(0, 1, 2, 3, 4), parts=None) -> dict:
    parts = {"Mass": ("Mass",), "Effusion": ("Nodule",)} if parts is None else parts
    columns = {name: [COLUMNS.index(part) for part in own] for name, own in parts.items()}
    found = [said(wrong_score)] * len(films)
    return evaluate_detections(
        found, SIZE, columns, data, np.array(films), tmp_path / "boxes.csv", draws=10, seed=0
    )


def test_boxes_of_a_film_are_in_order_and_those_without_a_score_are_none():
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scores = np.array([[0.2, 0.0, 0.7], [0.0, 0.9, 0.0]], dtype=np.float32)
    kept = Detections.kept(boxes, scores)
    np.testing.assert_array_equal(kept.boxes, boxes[[0, 0, 1], [2, 0, 1]])
    np.testing.assert_array_equal(kept.scores, scores[[0, 0, 1], [2, 0, 1]])
    assert kept.findings.tolist() == [0, 0, 1]
    assert len(Detections.kept(boxes, scores * 0).boxes) == 0


def test_boxes_are_judged_and_written_in_original_pixels(data, tmp_path):
    block = evaluated(data, tmp_path, 0.3)
    mass = block["findings"]["Mass"]
    assert [mass[f"recall_{percent}"]["value"] for percent in (25, 50, 75)] == [1, 1, 1]
    assert mass["recall_50"]["n"] == 2
    # the right boxes of the two drawn films and the absent one's are tied: ranks 0 to 2
    assert mass["ap_50"]["n"] == 3
    assert mass["ap_50"]["value"] == pytest.approx(1)
    assert block["findings"]["Effusion"]["recall_50"]["value"] is None
    assert block["macro"]["recall_50"]["n"] == 1
    with (tmp_path / "boxes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    assert {row["finding"] for row in rows} == {"Mass"}
    first = [float(rows[0][name]) for name in ("x1", "y1", "x2", "y2")]
    assert first == [DRAWN.x1, DRAWN.y1, DRAWN.x2, DRAWN.y2]
    assert float(rows[0]["score"]) == pytest.approx(0.9)
    assert rows[0]["image_id"] == data.image_ids[0]


def test_a_better_scored_wrong_box_costs_precision_and_the_first_hit(data, tmp_path):
    mass = evaluated(data, tmp_path, 0.95)["findings"]["Mass"]
    assert mass["image_hit_50"]["value"] == 1
    assert mass["image_hit_top1_50"]["value"] == 0
    # three wrong, then two right and one wrong: precision 2/5 at any recall
    assert mass["ap_50"]["value"] == pytest.approx(2 / 5)


def test_unknown_films_do_not_count(data, tmp_path):
    whole = evaluated(data, tmp_path, 0.95)["findings"]["Mass"]
    known = evaluated(data, tmp_path, 0.95, films=(0, 1, 2))["findings"]["Mass"]
    for metric, estimate in known.items():
        assert estimate["value"] == whole[metric]["value"], metric


def test_a_finding_made_of_several_has_the_boxes_of_all(data, tmp_path):
    parts = {"Mass": ("Nodule", "Mass")}
    merged = evaluated(data, tmp_path, 0.3, parts=parts)["findings"]["Mass"]
    assert merged["recall_75"]["value"] == 1
    assert FINDINGS[0] == "Mass"


def test_what_was_written_is_read_again_by_film_and_finding(data, tmp_path):
    evaluated(data, tmp_path, 0.95)
    found = read_boxes(tmp_path / "boxes.csv")
    assert set(found) == {(data.image_ids[film], "Mass") for film in range(5)}
    boxes = found[data.image_ids[1], "Mass"]
    np.testing.assert_allclose(boxes[:, 4], [0.95, 0.9])
    np.testing.assert_array_equal(boxes[1, :4], [DRAWN.x1, DRAWN.y1, DRAWN.x2, DRAWN.y2])
    np.testing.assert_array_equal(true_boxes(data, 1, "Mass"), boxes[1:, :4])
    assert true_boxes(data, 2, "Mass").shape == (0, 4)


def test_boxes_of_films_of_another_split_are_refused(data, tmp_path):
    evaluated(data, tmp_path, 0.95)
    file = tmp_path / "boxes.csv"
    moved = dataclasses.replace(data, splits=("train", *("test" for _ in data.image_ids[1:])))
    with pytest.raises(DataError, match="no box of a film of split 'test'"):
        read_box_cases(file, moved, "test", ("Mass",))
    file.write_text("image_id,finding,x1,y1,x2,y2,score\na,Mass,1,2,3,4,\n")
    with pytest.raises(DataError, match="a line is no box; evaluate the run again"):
        read_boxes(file)
