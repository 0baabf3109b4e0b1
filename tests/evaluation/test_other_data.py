"""A model of one data set on another: shared findings, unions, what is left over, references."""

import dataclasses
import itertools
import json

import cv2
import numpy as np
import pytest
from sklearn import metrics as sk
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.label_map import load_label_map
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.splits import patient_hashes
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.evaluation.maps import upsample
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.models.outputs import ModelCard, Outputs
from dwarf_cxr.reporting.page import compare, run_page
from tests.reporting.made import write_run

SIZE = 32
CHEST_DET = ("Nodule", "Fracture", "Mass", "Emphysema", "Effusion")
VINDR = ("Nodule/Mass", "ILD", "Pleural effusion", "Rib fracture", "Clavicle fracture")


def write_set(folder, name, findings, *, size=SIZE, seed=0, count=36) -> PreparedData:
    """Films of random labels (a third never assessed) and boxes, also on what is not present."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    radiographs = []
    for number in range(count):
        path = folder / f"film{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (48, 64), dtype=np.uint8))
        drawn = rng.choice([None, False, True], len(findings))
        labels = {
            one: bool(what) for one, what in zip(findings, drawn, strict=True) if what in (0, 1)
        }
        regions = []
        for finding in findings:
            if rng.random() < 0.8:
                x, y = (float(v) for v in rng.integers(0, 30, 2))
                regions.append(Region(finding, Box(x, y, x + 25, y + 15), "reader"))
        radiographs.append(
            Radiograph(
                image_id=f"film{number}",
                patient_id=f"p{number // 2}",
                path=path,
                labels=labels,
                regions=tuple(regions),
                split="test" if number < 24 else "val" if number < 30 else "train",
            )
        )
    source = SourceSet(name, findings, tuple(radiographs), "generated", "none", "none")
    return prepare(source, folder / "data", size=size, progress=lambda done, total: None)


class Known:
    """Answers by the film's pixels; knows `findings` of the set `name`."""

    image_size = SIZE

    def __init__(self, data, name, findings, seed=0):
        rng = np.random.default_rng(seed)
        self.findings = findings
        count = len(findings)
        self.answers = {
            data.pixels[index].tobytes(): (
                rng.random(count),
                rng.random((count, 4, 4)).astype(np.float32),
            )
            for index in range(len(data.image_ids))
        }
        limits = {one: 0.3 + 0.1 * place for place, one in enumerate(findings)}
        self.card = ModelCard(
            "known", name, "f", "s", "isolated", "unit", limits,
            {one: limit + 0.05 for one, limit in limits.items()},
            {one: limit / 2 for one, limit in limits.items()},
            rng.random((count, SIZE, SIZE)).astype(np.float32),
        )  # fmt: skip

    def predict(self, pixels, findings=None):
        chosen = [self.findings.index(name) for name in findings or self.findings]
        answers = [self.answers[one.tobytes()] for one in pixels]
        maps = np.array([maps[chosen] for _, maps in answers])
        return Outputs(
            np.array([scores[chosen] for scores, _ in answers]),
            maps,
            {"evidence": maps / 2, "prior": np.zeros((len(chosen), 4, 4), np.float32)},
        )


def by_hand(model, data, model_parts, data_parts):
    """Labels, scores, decisions, marked pixels and truths of the test films, by loops."""
    rows = []
    for index in data.indices("test"):
        own = [data.labels[index, data.findings.index(part)] for part in data_parts]
        label = 1.0 if 1 in own else 0.0 if all(one == 0 for one in own) else np.nan
        scores, maps = model.answers[data.pixels[index].tobytes()]
        columns = [model.findings.index(part) for part in model_parts]
        truth = np.zeros((SIZE, SIZE), np.float64)
        there = [part for part, one in zip(data_parts, own, strict=True) if one == 1]
        boxes = [data.regions(int(index), part) for part in there]
        # one of them is somewhere, nobody says where: the film has no true region
        drawn = [] if () in boxes else [region for boxed in boxes for region in boxed]
        for row, column in itertools.product(range(SIZE), range(SIZE)):
            # points that no integer edge can pass between: shares of 2 × 1.5 pixels are exact
            points = [((column + (a + 0.5) / 4) * 2, (row + (b + 0.5) / 6) * 1.5)
                      for a in range(4) for b in range(6)]  # fmt: skip
            inside = [
                any(r.shape.x1 <= x < r.shape.x2 and r.shape.y1 <= y < r.shape.y2 for r in drawn)
                for x, y in points
            ]
            truth[row, column] = np.mean(inside)
        present, marked, prior = False, np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
        for part, column in zip(model_parts, columns, strict=True):
            present |= scores[column] >= model.card.score_thresholds[part]
            marked |= upsample(maps[column], SIZE) >= model.card.map_thresholds[part]
            prior |= model.card.train_prior[column] >= model.card.prior_thresholds[part]
        rows.append((label, max(scores[columns]), present, marked, prior, truth))
    return [np.array(part) for part in zip(*rows, strict=True)]


@pytest.fixture(scope="module")
def vindr(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("vindr"), "VinDr-CXR", VINDR)


@pytest.fixture(scope="module")
def chest_det(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("det"), "ChestX-Det", CHEST_DET, seed=7)


def check_against_hand(metrics, model, data, parts):
    for name, (model_parts, data_parts) in parts.items():
        labels, scores, present, *drawn = by_hand(model, data, model_parts, data_parts)
        known = ~np.isnan(labels)
        assert 0 < known.sum() < len(labels)
        entry = metrics["findings"][name]
        assert entry["auc"]["n"] == known.sum()
        dice, prior_dice, false = [], [], []
        for label, marked, prior, truth in zip(labels, *drawn, strict=True):
            if label == 0:
                false.append(marked.mean())
            if label == 1 and truth.any():
                dice.append(2 * truth[marked].sum() / (marked.sum() + truth.sum()))
                prior_dice.append(2 * truth[prior].sum() / (prior.sum() + truth.sum()))
        assert entry["fp_area"]["value"] == pytest.approx(np.mean(false), abs=1e-9)
        assert entry["dice"]["n"] == len(dice)
        assert entry["dice"]["value"] == pytest.approx(np.mean(dice), abs=1e-6)
        reference = metrics["references"]["train_prior"]["findings"][name]["dice"]
        assert reference["value"] == pytest.approx(np.mean(prior_dice), abs=1e-6)
        for metric, oracle in (
            ("auc", sk.roc_auc_score(labels[known], scores[known])),
            ("ap", sk.average_precision_score(labels[known], scores[known])),
            ("f1", sk.f1_score(labels[known], present[known])),
            ("mcc", sk.matthews_corrcoef(labels[known], present[known])),
            ("accuracy", sk.accuracy_score(labels[known], present[known])),
        ):
            assert entry[metric]["value"] == pytest.approx(oracle, abs=1e-12)


def test_a_model_of_chestx_det_on_vindr(vindr, tmp_path):
    model = Known(vindr, "ChestX-Det", CHEST_DET)
    metrics = evaluate(model, vindr, split="test", out=tmp_path, draws=5, save_maps=True)
    parts = {
        "Nodule/Mass": (("Nodule", "Mass"), ("Nodule/Mass",)),
        "Fracture": (("Fracture",), ("Rib fracture", "Clavicle fracture")),
        "Effusion": (("Effusion",), ("Pleural effusion",)),
    }
    assert metrics["findings_order"] == list(parts)
    check_against_hand(metrics, model, vindr, parts)
    protocol = metrics["protocol"]
    assert protocol["findings_not_evaluated"] == {
        "only_in_model": ["Emphysema"],
        "only_in_data": ["ILD"],
    }
    assert protocol["shared_findings"] == {
        name: {"model": list(own), "data": list(theirs), "never_assessed": []}
        for name, (own, theirs) in parts.items()
    }
    assert protocol["label_map"] == {"source": "shared", "sha256": load_label_map().sha256}
    assert protocol["data"]["name"] == "VinDr-CXR"
    assert protocol["trained_on"]["name"] == "ChestX-Det"
    assert "the largest" in protocol["threshold_policy"]
    assert set(metrics["references"]) == {"all_ones", "train_prior", "best_grid", "shuffled"}
    for block in metrics["references"].values():
        assert block["findings"]["Nodule/Mass"]["dice"]["value"] is not None
    assert metrics["parts"]["evidence"]["findings"]["Nodule/Mass"]["dice"]["value"] is not None
    with np.load(tmp_path / "maps.npz") as saved:
        assert list(saved["findings"]) == list(parts)
        first = model.answers[vindr.pixels[vindr.indices("test")[0]].tobytes()][1]
        np.testing.assert_array_equal(saved["maps"][0, 0], first[[0, 2]].max(axis=0))


def test_a_model_of_vindr_on_chestx_det(chest_det, tmp_path):
    model = Known(chest_det, "VinDr-CXR", VINDR, seed=3)
    metrics = evaluate(model, chest_det, split="test", out=tmp_path, draws=5)
    parts = {
        "Nodule/Mass": (("Nodule/Mass",), ("Nodule", "Mass")),
        "Effusion": (("Pleural effusion",), ("Effusion",)),
        "Fracture": (("Rib fracture", "Clavicle fracture"), ("Fracture",)),
    }
    assert metrics["findings_order"] == list(parts)
    check_against_hand(metrics, model, chest_det, parts)


def test_data_without_a_part_have_no_negative(vindr, tmp_path):
    ribs = vindr.restrict(["Rib fracture", "ILD"])
    model = Known(vindr, "ChestX-Det", CHEST_DET)
    metrics = evaluate(model, ribs, split="test", out=tmp_path, draws=5)
    assert metrics["protocol"]["shared_findings"] == {
        "Fracture": {
            "model": ["Fracture"],
            "data": ["Rib fracture"],
            "never_assessed": ["Clavicle fracture"],
        }
    }
    entry = metrics["findings"]["Fracture"]
    assert entry["auc"] == {"value": None, "reason": "no image without the finding"}
    assert entry["dice"]["value"] is not None


def test_nothing_shared_is_one_error_with_both_vocabularies(vindr, tmp_path):
    model = Known(vindr, "NIH ChestX-ray14", ("Hernia", "Edema"))
    with pytest.raises(DataError, match=r"no finding is shared.*Hernia, Edema.*Nodule/Mass, ILD"):
        evaluate(model, vindr, split="test", out=tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_a_users_map_decides(vindr, tmp_path):
    (tmp_path / "names.yaml").write_text(
        "format: dwarf-label-map-1\nsets: {VinDr-CXR: {ILD: Emphysema}}\n", encoding="utf-8"
    )
    model = Known(vindr, "ChestX-Det", CHEST_DET)
    names = load_label_map(tmp_path / "names.yaml")
    metrics = evaluate(model, vindr, split="test", out=tmp_path, draws=5, label_map=names)
    assert metrics["findings_order"] == ["Nodule/Mass", "Emphysema"]
    assert metrics["protocol"]["label_map"]["source"] == str(tmp_path / "names.yaml")


def test_what_a_model_was_harmonised_with_decides_on_its_own_set(vindr, tmp_path):
    """A film with a clavicle fracture alone is no negative, though evaluate is told no map."""
    (tmp_path / "none.yaml").write_text("format: dwarf-label-map-1\nsets: {VinDr-CXR: }\n")
    model = Known(vindr, "VinDr-CXR", ("Rib fracture",))
    joined = {"Rib fracture": ["Rib fracture"], "Clavicle fracture": ["Rib fracture"]}
    model.card = dataclasses.replace(model.card, harmonised=joined)
    names = load_label_map(tmp_path / "none.yaml")
    out = tmp_path / "eval"
    metrics = evaluate(model, vindr, split="test", out=out, draws=5, label_map=names)
    parts = {"Rib fracture": (("Rib fracture",), ("Rib fracture", "Clavicle fracture"))}
    assert metrics["findings_order"] == list(parts)
    check_against_hand(metrics, model, vindr, parts)


def test_patients_seen_in_training_are_refused_under_other_names_too(vindr, tmp_path):
    """VinDr-CXR prepared once harmonised for training, and once more under its own names."""
    model = Known(vindr, "VinDr-CXR", ("Fracture", "Effusion"))
    model.card = dataclasses.replace(model.card, seen_patients=patient_hashes("VinDr-CXR", ["p3"]))
    with pytest.raises(DataError, match="1 patients of split 'test' were in the training"):
        evaluate(model, vindr, split="test", out=tmp_path / "eval")
    other = Known(vindr, "ChestX-Det", ("Fracture", "Effusion"))
    other.card = dataclasses.replace(other.card, seen_patients=patient_hashes("ChestX-Det", ["p3"]))
    evaluate(other, vindr, split="test", out=tmp_path / "eval", draws=5)


@pytest.fixture(scope="module")
def transfer(tmp_path_factory):
    """Two runs trained on ChestX-Det, and data of VinDr-CXR, for the command line."""
    folder = tmp_path_factory.mktemp("transfer")
    trained = write_set(folder / "det", "ChestX-Det", CHEST_DET, size=64, seed=1, count=32)
    data = write_set(folder / "vindr", "VinDr-CXR", VINDR, size=64, seed=2, count=32)
    runs = [
        write_run(
            folder / name, trained, seed=seed, method=method, findings=CHEST_DET, evaluated=False
        )
        for name, seed, method in (("one", 0, "dwarf"), ("two", 1, "dwarf-prior"))
    ]
    return runs, data


def test_the_command_the_page_and_a_comparison_name_both_lists(transfer, tmp_path):
    runs, data = transfer
    lines = []
    for run in runs:
        out = run / "eval-vindr"
        command = ["evaluate", str(run), "--data", str(data.folder), "--out", str(out)]
        result = CliRunner().invoke(app, [*command, "--draws", "5"], catch_exceptions=False)
        lines = result.output.splitlines()
    for line in (
        "trained on ChestX-Det, evaluated on VinDr-CXR",
        "Nodule/Mass: the model's largest of Nodule, Mass",
        "Fracture: the data's Rib fracture or Clavicle fracture",
        "untrained (in the data, not in the model): ILD",
        "unmatched (in the model, not in the data): Emphysema",
    ):
        assert line in lines
    page = (runs[0] / "eval-vindr" / "report.html").read_text(encoding="utf-8")
    assert "on VinDr-CXR</h1>" in page
    assert "was trained on other data (ChestX-Det)" in page
    assert "Untrained: in the data, not in the model</th><td><div>ILD</div>" in page
    assert "Unmatched: in the model, not in the data</th><td><div>Emphysema</div>" in page
    assert "No films are shown" not in page
    both = compare(runs, tmp_path / "both.html", split="vindr", draws=5).read_text(encoding="utf-8")
    assert "Map of two for Nodule/Mass" in both
    assert "Evidence of two for Nodule/Mass" in both


def test_runs_that_mean_different_findings_by_a_name_are_not_compared(transfer, tmp_path):
    runs, data = transfer
    (tmp_path / "names.yaml").write_text(
        "format: dwarf-label-map-1\nsets: {VinDr-CXR: {ILD: Effusion, Rib fracture: Fracture}}\n",
        encoding="utf-8",
    )
    for run, names in zip(runs, (None, tmp_path / "names.yaml"), strict=True):
        evaluate_run(run, data.folder, out=run / "eval-odd", draws=5, label_map=names)
    with pytest.raises(DataError, match=r"by Fracture: Rib fracture, and Rib fracture or Clavicle"):
        compare(runs, tmp_path / "page.html", split="odd", draws=5)


def test_the_outcome_says_how_often_the_maps_locate(transfer):
    runs, data = transfer
    lines = evaluate_run(runs[0], data.folder, out=runs[0] / "eval-said", draws=5)
    metrics = json.loads((runs[0] / "eval-said" / "metrics.json").read_text(encoding="utf-8"))
    for name, metric in (("mTIoU", "t_iou"), ("mTIoR", "t_ior")):
        (line,) = [line for line in lines if line.startswith(name)]
        own, ham = (metrics["macro"][f"{by}{metric}"]["value"] for by in ("", "ham_"))
        assert line.split()[1] == f"{own:.3f}"
        assert f"HAM's threshold {ham:.3f} [" in line
    references = [line for line in lines if line.startswith("reference")]
    assert len(references) == 4
    assert all("mTIoU" in line for line in references)


def test_an_evaluation_from_before_label_maps_still_has_a_page(transfer):
    runs, _ = transfer
    trained = runs[0].parent / "det" / "data"
    evaluate_run(runs[0], trained, out=runs[0] / "eval-old", draws=5)
    file = runs[0] / "eval-old" / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    del metrics["protocol"]["label_map"], metrics["protocol"]["shared_findings"]
    file.write_text(json.dumps(metrics), encoding="utf-8")
    page = run_page(runs[0], split="old").read_text(encoding="utf-8")
    assert "Map of one for Mass" in page


def test_data_are_prepared_under_shared_names_if_asked(tmp_path):
    root = tmp_path / "ours"
    write_set(root / "films", "ours", VINDR, count=32)
    rows = ["image_id,patient_id,split,Rib fracture,Clavicle fracture,Fluid"]
    labels = ["0,1,1", "0,0,0", "0,,", ",1,0", ",,1", "1,0,0"]
    rows += [
        f"film{n},p{n},{('train', 'val', 'test')[n % 3]},{written}"
        for n, written in enumerate(labels)
    ]
    (root / "images.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "names.yaml").write_text(
        "format: dwarf-label-map-1\n"
        "sets: {ours: {Rib fracture: Fracture, Clavicle fracture: Fracture, Fluid: Effusion}}\n",
        encoding="utf-8",
    )
    command = ["data", "prepare", "csv", "--root", str(root), "--size", "16", "--out"]
    wanted = ["--label-map", str(root / "names.yaml"), "--findings", "Effusion,Fracture"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "shared"), *wanted])
    assert result.exit_code == 0, result.output
    assert "Fracture = Rib fracture or Clavicle fracture; Effusion = Fluid" in result.output
    data = PreparedData.open(tmp_path / "shared")
    assert data.findings == ("Effusion", "Fracture")
    assert data.harmonised["Fluid"] == ("Effusion",)
    unknown = np.nan
    np.testing.assert_array_equal(data.labels[:, 1], [1, 0, unknown, 1, unknown, 1])
    assert CliRunner().invoke(app, [*command, str(tmp_path / "own")]).exit_code == 0
    own = PreparedData.open(tmp_path / "own")
    assert own.findings == ("Rib fracture", "Clavicle fracture", "Fluid")
    assert own.harmonised == {}
