"""What CheXlocalize's scripts would make of our files, done anew here from their description."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.chexlocalize import read_chexlocalize
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.splits import patient_hashes
from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.export import chexlocalize
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.outputs import ModelCard, Outputs
from tests.data import made_chexpert as made
from tests.reporting.made import SIZE, tiny_model, write_data

BAND = np.repeat(np.array([0, 1, 1, 1, 0], dtype=np.float32), 4).reshape(5, 4)
"""Rows 1 to 3 of five: of 60 rows, bilinear, .5 is reached in rows 12 to 47, .7 in 14 to 45."""
RAMP = np.linspace(0.2, 0.4, 20, dtype=np.float32).reshape(5, 4)
ANSWERS = {"Cardiomegaly": BAND, "Effusion": RAMP, "Lung Opacity": np.full((5, 4), 0.3, np.float32)}


@dataclasses.dataclass
class Answering:
    """A model whose maps are known."""

    card: ModelCard | None
    findings: tuple[str, ...] = ("Fracture", "Effusion", "Cardiomegaly", "Lung Opacity")
    image_size: int = SIZE
    spoil: bool = False

    def predict(self, pixels, findings):
        maps = np.stack([np.stack([ANSWERS[name] for name in findings])] * len(pixels))
        if self.spoil:
            maps[-1, -1, 0, 0] = np.nan
        probability = np.tile(np.linspace(0.25, 0.75, len(findings)), (len(pixels), 1))
        return Outputs(probability, maps, {})


def card(**changes):
    return ModelCard(
        **{
            "method": "dwarf",
            "data_name": "other",
            "data_fingerprint": "0" * 64,
            "splits_sha256": "1" * 64,
            "query_context": "isolated",
            "map_domain": "unit",
            "score_thresholds": {},
            "map_thresholds": {"Cardiomegaly": 0.7, "Effusion": 0.301, "Lung Opacity": None},
            "prior_thresholds": {},
            "train_prior": np.zeros((0, SIZE, SIZE), np.float32),
        }
        | changes
    )


def silent(done, total):
    pass


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The download, with a band over the whole width as Cardiomegaly of the first test view."""
    root = tmp_path_factory.mktemp("set")
    made.write_chexlocalize(root, shrink=0.5)
    drawn = dict(made.ANNOTATIONS["test"])
    drawn[made.TEST_FRONTAL] = {
        "img_size": [60, 80],
        "Cardiomegaly": [made.rectangle(0, 12, 79, 47)],
        "Pleural Effusion": [made.rectangle(60, 40, 79, 59)],
    }
    folder = root / "CheXlocalize"
    made.write_json(folder / "gt_annotations_test.json", drawn)
    made.write_json(folder / "gt_segmentations_test.json", made.segmentations(drawn))
    return root


@pytest.fixture(scope="module")
def data(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    return prepare(read_chexlocalize(official), folder, size=SIZE, progress=silent).folder


@pytest.fixture
def answering(monkeypatch):
    """Make the exported model one whose maps are known."""

    def use(**changes):
        model = Answering(**{"card": card()} | changes)
        monkeypatch.setattr(chexlocalize, "load_model", lambda run: model)

    return use


def opened(path):
    with path.open("rb") as file:
        return pickle.load(file)


def enlarged(content):
    width, height = content["cxr_dims"]
    return torch.nn.functional.interpolate(
        content["map"], size=(height, width), mode="bilinear", align_corners=False
    )[0, 0]


def their_segmentation(content, threshold):
    map_ = enlarged(content)
    map_ = map_ - map_.min()
    return (map_ / map_.max() > threshold).numpy()


def their_iou(predicted, encoded_truth):
    truth = coco_mask.decode(encoded_truth).astype(bool)
    assert truth.shape == predicted.shape
    return (predicted & truth).sum() / (predicted | truth).sum()


def test_pickles_hold_what_the_scripts_read(official, data, tmp_path, answering):
    answering()
    truth = official / "CheXlocalize" / "gt_segmentations_test.json"
    chexlocalize.export_maps(tmp_path, data, tmp_path / "out", ground_truth=truth)
    names = {path.name for path in (tmp_path / "out" / "maps_test").iterdir()}
    assert names == {
        f"{view}_{task}_map.pkl"
        for view in (made.TEST_FRONTAL, made.TEST_OTHER)
        for task in ("Cardiomegaly", "Pleural Effusion", "Airspace Opacity")
    }
    path = tmp_path / "out" / "maps_test" / f"{made.TEST_FRONTAL}_Cardiomegaly_map.pkl"
    # their way to take a name apart
    assert path.name.split("_")[-2] == "Cardiomegaly"
    assert "_".join(path.name.split("_")[:-2]) == made.TEST_FRONTAL
    content = opened(path)
    assert list(content) == ["map", "prob", "task", "gt", "cxr_img", "cxr_dims"]
    assert (content["map"].shape, content["map"].dtype) == ((1, 1, 5, 4), torch.float32)
    np.testing.assert_array_equal(content["map"][0, 0], BAND)
    assert content["cxr_dims"] == (80, 60)
    assert (content["task"], content["gt"]) == ("Cardiomegaly", 1)
    assert type(content["prob"]) is float
    # the ten come in the order of CheXpert's table: Cardiomegaly, Lung Opacity, Effusion
    assert content["prob"] == 0.25
    assert content["cxr_img"].shape == (3, SIZE, SIZE)
    assert 0 <= content["cxr_img"].min() < content["cxr_img"].max() <= 1
    opacity = opened(path.with_name(f"{made.TEST_FRONTAL}_Airspace Opacity_map.pkl"))
    assert (opacity["task"], opacity["gt"], opacity["prob"]) == ("Airspace Opacity", 0, 0.5)


def test_their_evaluation_of_our_pickles_gives_the_iou_of_the_map(
    official, data, tmp_path, answering
):
    answering()
    file = official / "CheXlocalize" / "gt_segmentations_test.json"
    chexlocalize.export_maps(tmp_path, data, tmp_path, ground_truth=file)
    truth = json.loads(file.read_text())[made.TEST_FRONTAL]
    content = opened(tmp_path / "maps_test" / f"{made.TEST_FRONTAL}_Cardiomegaly_map.pkl")
    assert their_iou(their_segmentation(content, 0.5), truth["Cardiomegaly"]) == 1
    assert their_iou(their_segmentation(content, 0.7), truth["Cardiomegaly"]) == 32 / 36
    # the ramp rises to the last pixel, below right, whatever its level: stretched, .5 is its half
    content = opened(tmp_path / "maps_test" / f"{made.TEST_FRONTAL}_Pleural Effusion_map.pkl")
    assert 0.45 < their_segmentation(content, 0.5).mean() < 0.55
    top = np.unravel_index(enlarged(content).numpy().argmax(), (60, 80))
    assert coco_mask.decode(truth["Pleural Effusion"])[top] == 1


def test_our_segmentations_in_their_file(official, data, tmp_path, answering):
    answering()
    file = official / "CheXlocalize" / "gt_segmentations_test.json"
    chexlocalize.export_maps(tmp_path, data, tmp_path, ground_truth=file)
    truth = json.loads(file.read_text())
    ours = json.loads((tmp_path / "segmentations_test.json").read_text())
    assert set(ours) == {made.TEST_FRONTAL, made.TEST_OTHER}
    assert all(set(entry) == set(made.TASKS) for entry in ours.values())
    masks = {task: coco_mask.decode(runs) for task, runs in ours[made.TEST_FRONTAL].items()}
    assert all(mask.shape == (60, 80) for mask in masks.values())
    want = np.zeros((60, 80), bool)
    want[14:46] = True
    np.testing.assert_array_equal(masks["Cardiomegaly"], want)
    encoded_truth = truth[made.TEST_FRONTAL]["Cardiomegaly"]
    assert their_iou(masks["Cardiomegaly"].astype(bool), encoded_truth) == 32 / 36
    content = opened(tmp_path / "maps_test" / f"{made.TEST_FRONTAL}_Pleural Effusion_map.pkl")
    # not stretched: its own level counts
    np.testing.assert_array_equal(masks["Pleural Effusion"], enlarged(content) >= 0.301)
    # no threshold; not known
    assert masks["Airspace Opacity"].sum() == masks["Edema"].sum() == 0


def test_without_ground_truth_the_file_gives_the_size(data, tmp_path, answering):
    answering()
    chexlocalize.export_maps(tmp_path, data, tmp_path)
    content = opened(tmp_path / "maps_test" / f"{made.TEST_FRONTAL}_Cardiomegaly_map.pkl")
    assert content["cxr_dims"] == (40, 30)
    ours = json.loads((tmp_path / "segmentations_test.json").read_text())
    assert ours[made.TEST_FRONTAL]["Cardiomegaly"]["size"] == [30, 40]


def test_what_the_scripts_stumble_over_is_said(official, data, tmp_path, answering):
    answering()
    file = official / "CheXlocalize" / "gt_segmentations_val.json"
    lines = chexlocalize.export_maps(tmp_path, data, tmp_path, split="val", ground_truth=file)
    said = "\n".join(lines)
    assert f"6 maps of 2 views in {tmp_path / 'maps_val'}" in lines
    assert "does not know Enlarged Cardiomediastinum, Lung Lesion, Edema" in said
    assert "no map threshold for Airspace Opacity" in said
    assert "2 maps are flat" in said
    assert f"1 views of the ground truth get no map ({made.VAL_LATERAL})" in said
    assert (tmp_path / "segmentations_val.json").is_file()


def test_labels_that_are_not_there_are_none(official, tmp_path, answering):
    answering()
    source = read_chexlocalize(official)
    only = prepare(source, tmp_path / "d", size=SIZE, findings=["Effusion"], progress=silent)
    chexlocalize.export_maps(tmp_path, only.folder, tmp_path)
    folder = tmp_path / "maps_test"
    assert opened(folder / f"{made.TEST_FRONTAL}_Cardiomegaly_map.pkl")["gt"] is None
    assert opened(folder / f"{made.TEST_FRONTAL}_Pleural Effusion_map.pkl")["gt"] == 0


def test_a_second_export_replaces_the_first_as_a_whole(data, tmp_path, answering):
    answering()
    chexlocalize.export_maps(tmp_path, data, tmp_path)
    stale = tmp_path / "maps_test" / "patient1_study1_view1_frontal_Edema_map.pkl"
    stale.touch()
    before = (tmp_path / "segmentations_test.json").read_bytes()
    answering(spoil=True)
    with pytest.raises(CheckpointError, match="not numbers"):
        chexlocalize.export_maps(tmp_path, data, tmp_path)
    assert stale.exists()
    assert (tmp_path / "segmentations_test.json").read_bytes() == before
    answering()
    chexlocalize.export_maps(tmp_path, data, tmp_path)
    assert not stale.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "maps_test",
        "segmentations_test.json",
    ]


class Killed(BaseException):
    """The end of the process."""


def test_an_export_killed_before_its_segmentations_leaves_none_of_another_model(
    data, tmp_path, answering, monkeypatch
):
    answering()
    chexlocalize.export_maps(tmp_path, data, tmp_path)
    chexlocalize.export_maps(tmp_path, data, tmp_path, split="val")
    replace = os.replace

    def killed_after(name):
        def dying(old, new):
            replace(old, new)
            if Path(new).name == name:
                raise Killed

        return dying

    answering(card=card(map_thresholds={"Cardiomegaly": 0.2}))
    for name in ("maps_test.old", "maps_test"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed_after(name))
            with pytest.raises(Killed):
                chexlocalize.export_maps(tmp_path, data, tmp_path)
        assert not (tmp_path / "segmentations_test.json").exists()
        # another split is another export
        assert (tmp_path / "segmentations_val.json").exists()
    assert (tmp_path / "maps_test" / f"{made.TEST_FRONTAL}_Cardiomegaly_map.pkl").exists()
    chexlocalize.export_maps(tmp_path, data, tmp_path)
    ours = json.loads((tmp_path / "segmentations_test.json").read_text())
    assert coco_mask.decode(ours[made.TEST_FRONTAL]["Cardiomegaly"])[13].all()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ({"card": None}, CheckpointError, "no card"),
        ({"image_size": 128}, CheckpointError, "--size 128"),
        ({"findings": ("Fracture", "Mass")}, DataError, "knows none of CheXlocalize's findings"),
    ],
)
def test_models_that_cannot_be_exported(data, tmp_path, answering, model, kind, message):
    answering(**model)
    with pytest.raises(kind, match=message):
        chexlocalize.export_maps(tmp_path, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_patients_of_the_training_are_refused(data, tmp_path, answering):
    seen = patient_hashes("CheXlocalize", ["patient64741"])
    answering(card=card(data_name="CheXlocalize", seen_patients=seen))
    with pytest.raises(DataError, match="1 patients of split 'test'"):
        chexlocalize.export_maps(tmp_path, data, tmp_path / "out")


def test_other_data_and_empty_splits_are_refused(data, tmp_path, answering):
    answering()
    other = write_data(tmp_path / "other")
    with pytest.raises(DataError, match=r"11 images are not named .*film5, film6"):
        chexlocalize.export_maps(tmp_path, other.folder, tmp_path / "out")
    with pytest.raises(DataError, match="no image in split 'train'; its splits are test, val"):
        chexlocalize.export_maps(tmp_path, data, tmp_path / "out", split="train")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {made.TEST_FRONTAL: []},
        {made.TEST_FRONTAL: {}},
        {made.TEST_FRONTAL: {"img_size": [60, 80]}},
        {made.TEST_FRONTAL: {"Edema": {"size": [60]}}},
        {made.TEST_FRONTAL: {"Edema": {"size": [60, 80]}, "Fracture": {"size": [80, 60]}}},
    ],
)
def test_a_ground_truth_of_another_form_is_named(data, tmp_path, answering, content):
    answering()
    made.write_json(tmp_path / "gt.json", content)
    with pytest.raises(DataError, match=r"gt\.json"):
        chexlocalize.export_maps(tmp_path, data, tmp_path / "o", ground_truth=tmp_path / "gt.json")
    assert not (tmp_path / "o").exists()


def test_the_command_exports_a_real_model(official, data, tmp_path):
    from dwarf_cxr.data.store import PreparedData

    prepared = PreparedData.open(data)
    model = tiny_model(prepared, findings=("Effusion", "Edema", "Pneumonia"))
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=20)
    save_model(model, tmp_path / "model")
    truth = official / "CheXlocalize" / "gt_segmentations_test.json"
    words = ["export", "chexlocalize", tmp_path / "model", "--data", data, "--out", tmp_path / "o"]
    result = CliRunner().invoke(app, [*map(str, words), "--ground-truth", str(truth)])
    assert result.exit_code == 0, result.output
    assert "4 maps of 2 views" in result.output
    index = prepared.image_ids.index(made.TEST_FRONTAL)
    # in the same batch: heads this steep turn another batch size's 7th digit into 3e-5
    views = prepared.indices("test")
    asked = tuple(finding for finding in chexlocalize.TASKS if finding in model.findings)
    expected = load_model(tmp_path / "model").predict(prepared.pixels[views], asked)
    row, column = views.tolist().index(index), asked.index("Edema")
    content = opened(tmp_path / "o" / "maps_test" / f"{made.TEST_FRONTAL}_Edema_map.pkl")
    np.testing.assert_allclose(content["map"][0, 0], expected.maps[row, column], rtol=1e-5)
    assert content["prob"] == pytest.approx(expected.probability[row, column])
    ours = json.loads((tmp_path / "o" / "segmentations_test.json").read_text())
    drawn = coco_mask.decode(ours[made.TEST_FRONTAL]["Edema"]).astype(bool)
    differs = drawn != (enlarged(content).numpy() >= 0.5)
    assert 0 < drawn.mean() < 1
    assert differs.mean() < 0.001
