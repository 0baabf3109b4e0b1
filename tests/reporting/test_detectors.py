"""A report about a run whose model also gives boxes, and tells attributes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.detections import evaluate_detections
from dwarf_cxr.reporting.detectors import BOX_GROUPS, attribute_table, box_tables
from dwarf_cxr.reporting.examples import MOST_BOXES, make_gallery
from dwarf_cxr.reporting.metrics import BOX_METRICS
from dwarf_cxr.reporting.page import compare
from dwarf_cxr.reporting.runs import read_runs
from tests.reporting.made import DRAWS, FINDINGS, HEIGHT, ODD, SIZE, WIDTH
from tests.reporting.test_page import Reader, metrics_of


def boxes_on(films: int, scores: list[float]) -> list[Detections]:
    """The same boxes of the first finding on every film; of the others none."""
    # a little apart, so that all of them are boxes of their own
    boxes = np.array([[4 + 6 * n, 8, 24 + 6 * n, 30] for n in range(len(scores))])
    boxes = boxes.astype(np.float32).reshape(-1, 4)
    said = Detections(boxes, np.array(scores, np.float32), np.zeros(len(boxes), dtype=int))
    return [said] * films


def detector(run, data, folder, scores):
    """A copy of a made run that has such boxes as well."""
    made = shutil.copytree(run, folder)
    evaluation = made / "eval-test"
    films = data.indices("test")
    block = evaluate_detections(
        boxes_on(len(films), scores),
        SIZE,
        {name: [column] for column, name in enumerate(FINDINGS)},
        data,
        films,
        evaluation / "boxes.csv",
        draws=DRAWS,
        seed=0,
    )
    change(made, boxes=block)
    return made


def change(run, **blocks):
    metrics = metrics_of(run) | blocks
    (run / "eval-test" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


@pytest.fixture
def found(made_runs, made_data, tmp_path):
    return detector(made_runs[0], made_data, tmp_path / "found", [0.8, 0.6, 0.3])


def panels(run, title="Boxes of found"):
    """Of every example of the first two findings, the lines below the boxes."""
    (read,) = read_runs([run], "test")
    return [
        [panel.lines for panel in example.panels if panel.title == title]
        for section in make_gallery([read], None, 3).findings
        for example in section.examples
    ]


def test_the_page_has_the_boxes_of_the_metrics_file(found, made_runs, tmp_path):
    page = compare([made_runs[1], found], tmp_path / "a.html", draws=5)
    read = Reader(page.read_text(encoding="utf-8"))
    assert "#boxes" in {link["href"] for link in read.all("a")}
    macro, by_finding = [
        table for table in read.tables if any("Films hit, IoU" in cell for cell in table[0])
    ]
    assert macro[1] == ["Run", *(["0.25", "0.50", "0.75"] * 4)]
    # the other run is no detector
    (row,) = macro[2:]
    assert row[0].startswith("found|")
    block = metrics_of(found)["boxes"]
    keys = [
        f"{name}_{percent}"
        for name in ("recall", "image_hit", "image_hit_top1", "ap")
        for percent in (25, 50, 75)
    ]
    for key, cell in zip(keys, row[1:], strict=True):
        entry = block["macro"][key]
        assert cell.split("|")[0] == f"{entry['value']:.3f}"
        # of the three findings two have true boxes
        assert cell.endswith("|2 of 3")
    for name, line in zip(FINDINGS, by_finding[2:], strict=True):
        entries = [block["findings"][name][key] for key in keys]
        shown = ["—" if entry["value"] is None else f"{entry['value']:.3f}" for entry in entries]
        assert [cell.split("|")[0] for cell in line[1:]] == shown
        assert not any("of 3" in cell for cell in line)
    counts = [line[0] for line in by_finding[2:]]
    n = [block["findings"][name]["recall_25"].get("n") for name in FINDINGS]
    assert counts == [f"{ODD}|{n[0]} true boxes", f"Effusion|{n[1]} true boxes", "Nodule"]


def test_columns_are_grouped_as_they_are_measured():
    heads = [label for label, _ in BOX_GROUPS]
    assert heads == ["Recall", "Films hit", "First hit", "AP"]
    labels = [metric.label for metric in BOX_METRICS]
    assert labels == [f"{head} .{percent}" for head in heads for percent in (25, 50, 75)]


def test_without_a_detector_there_is_no_table(made_runs):
    assert box_tables(read_runs(made_runs, "test")) == []


def test_boxes_at_the_threshold_stand_on_the_films(found, made_data):
    # the threshold of the made models is .5
    lines = panels(found)
    assert len(lines) == 6
    (read,) = read_runs([found], "test")
    sections = make_gallery([read], None, 3).findings
    for section, drawn in ((sections[0], lines[:3]), (sections[1], lines[3:])):
        for example, ((said, *overlap),) in zip(section.examples, drawn, strict=True):
            if section.finding != ODD:
                assert (said, overlap) == ("no box", [])
                continue
            assert said == "2 boxes at the threshold"
            index = made_data.image_ids.index(example.image_id)
            (region,) = made_data.regions(index, ODD)
            expected = max(iou(box, region.shape) for box in original_boxes(2))
            assert overlap == [f"largest IoU {expected:.2f}"]


def original_boxes(count):
    """The first boxes of `Boxes` in pixels of the made films."""
    across, down = WIDTH / SIZE, HEIGHT / SIZE
    return [
        ((4 + 6 * n) * across, 8 * down, (24 + 6 * n) * across, 30 * down) for n in range(count)
    ]


def iou(box, truth):
    """Of a box and a true one, by hand."""
    across = max(0.0, min(box[2], truth.x2) - max(box[0], truth.x1))
    down = max(0.0, min(box[3], truth.y2) - max(box[1], truth.y1))
    area = (box[2] - box[0]) * (box[3] - box[1]) + (truth.x2 - truth.x1) * (truth.y2 - truth.y1)
    return across * down / (area - across * down)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.4, 0.3], "no box reaches the threshold: the best one"),
        ([0.7, 0.3], "1 box at the threshold"),
        ([0.9] * (MOST_BOXES + 2), f"the best {MOST_BOXES} of {MOST_BOXES + 2} boxes at the"),
    ],
)
def test_what_is_drawn_of_many_boxes_or_of_weak_ones(made_runs, made_data, tmp_path, scores, said):
    run = detector(made_runs[0], made_data, tmp_path / "found", scores)
    for (lines,) in panels(run)[:3]:
        assert lines[0].startswith(said)


def test_without_a_threshold_the_best_boxes_are_drawn(made_data, made_runs, tmp_path):
    run = detector(made_runs[0], made_data, tmp_path / "found", [0.4, 0.3])
    file = run / "model" / "config.json"
    assert '"map_thresholds"' in file.read_text(encoding="utf-8")
    card = json.loads(file.read_text(encoding="utf-8"))
    holder = next(
        block
        for block in (card, *filter(lambda v: isinstance(v, dict), card.values()))
        if "map_thresholds" in block
    )
    holder["map_thresholds"] = dict.fromkeys(FINDINGS)
    file.write_text(json.dumps(card), encoding="utf-8")
    (read,) = read_runs([run], "test")
    gallery = make_gallery([read], None, 1)
    lines = [p.lines for p in gallery.findings[0].examples[0].panels if p.title.startswith("Boxes")]
    assert lines[0][0] == "2 boxes"


def test_a_damaged_file_of_boxes_is_named(found, made_data):
    (found / "eval-test" / "boxes.csv").write_text("image_id,finding,x1\na,b,c\n")
    (read,) = read_runs([found], "test")
    assert "boxes.csv: a line is no box" in make_gallery([read], None, 1).problem
    with pytest.raises(DataError, match=r"boxes\.csv"):
        make_gallery([read], made_data.folder, 1)


ENTRY = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9}
NONE = {"value": None, "reason": "no image with the finding"}


def told(films=9, present=True, **attributes):
    block = {
        "films": films,
        "attributes": {name: {"auc": one, "ap": one} for name, one in attributes.items()},
        "macro": {"auc": ENTRY | {"n": 1}, "ap": ENTRY | {"n": 1}},
    }
    return block | ({"present": dict.fromkeys(attributes, 4)} if present else {})


def test_attributes_stand_on_the_page_and_what_could_not_be_judged_below(made_runs, tmp_path):
    run = shutil.copytree(made_runs[0], tmp_path / "reader")
    change(run, attributes=told(upper=ENTRY, lower=NONE))
    read = Reader(compare([run], tmp_path / "a.html", draws=5).read_text(encoding="utf-8"))
    assert "#attributes" in {link["href"] for link in read.all("a")}
    (table,) = [table for table in read.tables if table[1][:1] == ["Attribute"]]
    assert table[0][1] == "reader (dwarf, seed 0)|9 films with reports"
    assert table[1:] == [
        ["Attribute", "AUC", "AP"],
        ["Mean of the attributes", "0.700|0.600–0.800|1 of 2", "0.700|0.600–0.800|1 of 2"],
        ["upper|4 of 9 films", "0.700|0.600–0.800", "0.700|0.600–0.800"],
    ]
    assert "Not judged (no image with it): lower." in read.text


def test_attributes_of_two_runs_stand_side_by_side(made_runs):
    runs = read_runs(made_runs, "test")
    assert attribute_table(runs) is None
    blocks = [told(upper=ENTRY, lower=NONE), told(7, present=False, upper=NONE, lower=ENTRY)]
    readers = [
        dataclasses.replace(run, metrics={**run.metrics, "attributes": block})
        for run, block in zip(runs, blocks, strict=False)
    ]
    table = attribute_table([*readers, runs[2]])
    assert table.runs == ("first (dwarf, seed 0)", "second (dwarf, seed 1)")
    assert table.films == (9, 7)
    assert table.undefined == ()
    texts = {row.name: [cell.text for cell in row.cells] for row in table.rows[1:]}
    assert texts == {"upper": ["0.700", "0.700", "—", "—"], "lower": ["—", "—", "0.700", "0.700"]}
    # the second evaluation does not say how many films have it
    assert [row.note for row in table.rows[1:]] == ["4 of 9 films", "4 of 9 films"]
