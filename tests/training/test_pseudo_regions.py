"""`dwarf teachers` as a whole: what is drawn, by whom, how it is judged and what is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.check import check
from dwarf_cxr.data.coco import shapes_from_coco
from dwarf_cxr.data.geometry import decode_mask
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.bootstrap import Estimate
from dwarf_cxr.training import pseudo_regions, teachers
from dwarf_cxr.training.pseudo_regions import Quality, net_files, table, teach
from dwarf_cxr.training.teachers import TeacherSettings, load_net, probabilities, small_images
from tests.training.made_teaching import (
    HEIGHT,
    RARE,
    SIZE,
    TEACHABLE,
    WIDTH,
    mark_of,
    write_teaching,
)

SETTINGS = TeacherSettings(epochs=3, size=16, seed=4)


def quiet(line: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return write_teaching(tmp_path_factory.mktemp("teaching") / "data")


@pytest.fixture(scope="module")
def taught(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "out"
    teach(data.folder, out, settings=SETTINGS, report=quiet)
    return out


def annotations(folder: Path, kind: str) -> list[dict]:
    document = json.loads((folder / "regions.json").read_text())
    return [one for one in document["annotations"] if one["kind"] == kind]


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "teachers.csv").open(newline="") as stream:
        return {row["finding"]: row for row in csv.DictReader(stream)}


class Memory(torch.nn.Module):
    """A poisoned net: marks the whole film of a patient it was trained on, else the middle."""

    def __init__(self, marks: list[int]) -> None:
        super().__init__()
        self.register_buffer("marks", torch.tensor(marks))

    def forward(self, films):
        logits = torch.full_like(films, -9)
        logits[..., 4:-4, 4:-4] = 9
        known = torch.isin((films[:, 0, 0, 0] * 25.5).round(), self.marks)
        logits[known] = 9
        return logits


def test_no_mask_is_of_a_net_that_saw_the_patient(data, tmp_path, monkeypatch):
    def memorise(images, shares, epochs, seed, tick):
        return Memory([mark_of(image) for image in images])

    monkeypatch.setattr(teachers, "train_net", memorise)
    out = tmp_path / "out"
    teach(data.folder, out, settings=SETTINGS, report=quiet)
    pseudo = annotations(out, "pseudo")
    assert len(pseudo) == 17
    whole = 0
    for one in pseudo:
        index = one["image_id"] - 1
        (mask,) = shapes_from_coco(one, "here")
        assert not decode_mask(mask).all()
        patient = int(data.patient_ids[index].removeprefix("patient"))
        fold = int(one["annotator"].rsplit(" ", 1)[1])
        for number in range(SETTINGS.folds):
            marks = load_file(out / "teachers" / f"Mass-{number}.safetensors")["marks"].tolist()
            assert (patient in marks) == (number != fold)
            image = small_images(data, np.array([index]), SETTINGS.size)
            whole += bool((probabilities(Memory(marks), image) > 0.5).all())
    # the other two nets would have given themselves away
    assert whole == 2 * len(pseudo)
    # and so out-of-fold Dice is that of a net that knows nothing, as it is on validation
    quality = rows(out)[TEACHABLE]
    expected = []
    for index in data.indices("val")[::2]:
        map_ = np.zeros((16, 16), dtype=np.float32)
        map_[4:-4, 4:-4] = 1 / (1 + np.exp(-9))
        expected.append(naive_dice(map_, data, index))
    assert float(quality["val_dice"]) == pytest.approx(np.mean(expected), abs=0.02)


def naive_dice(map_: np.ndarray, data: PreparedData, index: int) -> float:
    """Dice of the upsampled map at .5 with the expert's box, pixel by pixel."""
    (box,) = (region.shape for region in data.regions(index, TEACHABLE))
    small = torch.from_numpy(map_)[None, None]
    large = torch.nn.functional.interpolate(
        small, (SIZE, SIZE), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    x_scale, y_scale = SIZE / WIDTH, SIZE / HEIGHT
    overlap = marked = size = 0.0
    for row in range(SIZE):
        for column in range(SIZE):
            wide = min(box.x2 * x_scale, column + 1) - max(box.x1 * x_scale, column)
            high = min(box.y2 * y_scale, row + 1) - max(box.y1 * y_scale, row)
            share = max(wide, 0) * max(high, 0)
            size += share
            if large[row, column] >= 0.5:
                marked += 1
                overlap += share
    return 2 * overlap / (marked + size)


def test_the_quality_is_the_mean_dice_on_validation(data, taught):
    nets = [load_net(taught / "teachers" / f"Mass-{fold}.safetensors")[0] for fold in range(3)]
    per_image = []
    for index in data.indices("val"):
        if data.regions(index, TEACHABLE):
            image = small_images(data, np.array([index]), SETTINGS.size)
            dice = [naive_dice(probabilities(net, image)[0], data, index) for net in nets]
            per_image.append(sum(dice) / len(dice))
    quality = rows(taught)[TEACHABLE]
    assert len(per_image) == 3 == int(quality["val_images"])
    mean = sum(per_image) / 3
    assert float(quality["val_dice"]) == pytest.approx(mean, abs=1e-5)
    # three patients of one film each: draws lie between the least and the largest
    low, high = float(quality["val_dice_low"]), float(quality["val_dice_high"])
    assert min(per_image) - 1e-5 <= low < mean < high <= max(per_image) + 1e-5
    assert {one["teacher_dice"] for one in annotations(taught, "pseudo")} == {
        float(quality["val_dice"])
    }
    held_out = []
    for index in data.indices("train"):
        if data.regions(index, TEACHABLE):
            fold = fold_of(taught, data.patient_ids[index], data)
            image = small_images(data, np.array([index]), SETTINGS.size)
            held_out.append(naive_dice(probabilities(nets[fold], image)[0], data, index))
    assert float(quality["out_of_fold_dice"]) == pytest.approx(np.mean(held_out), abs=1e-5)
    assert int(quality["train_images_with_region"]) == len(held_out) == 9


def fold_of(out: Path, patient: str, data: PreparedData) -> int:
    folds = {
        int(one["annotator"].rsplit(" ", 1)[1])
        for one in annotations(out, "pseudo")
        if data.patient_ids[one["image_id"] - 1] == patient
    }
    (fold,) = folds
    return fold


def test_regions_are_drawn_on_training_images_with_the_finding_alone(data, taught):
    opened = PreparedData.open(taught)
    pseudo = opened.with_regions("pseudo").has_region()
    assert pseudo.any()
    for index, finding in np.argwhere(pseudo):
        assert opened.splits[index] == "train"
        assert opened.labels[index, finding] == 1
        assert opened.findings[finding] == TEACHABLE
    assert pseudo.sum() == int(rows(taught)[TEACHABLE]["pseudo_regions"])
    for one in annotations(taught, "pseudo"):
        (mask,) = shapes_from_coco(one, "here")
        assert (mask.width, mask.height) == (WIDTH, HEIGHT)
    assert annotations(taught, "expert") == annotations(data.folder, "expert")


def test_a_pseudo_mask_is_the_nets_probability_from_one_half_on(data, taught):
    opened = PreparedData.open(taught).with_regions("pseudo")
    index = next(i for i in opened.indices("train") if opened.regions(i, TEACHABLE))
    fold = fold_of(taught, data.patient_ids[index], data)
    net, _ = load_net(taught / "teachers" / f"Mass-{fold}.safetensors")
    drawn = probabilities(net, small_images(data, np.array([index]), SETTINGS.size))
    large = torch.nn.functional.interpolate(
        torch.from_numpy(drawn)[None], (HEIGHT, WIDTH), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    clear = np.abs(large - 0.5) > 1e-4
    (region,) = opened.regions(index, TEACHABLE)
    np.testing.assert_array_equal(decode_mask(region.shape)[clear], (large >= 0.5)[clear])


def test_the_result_is_a_sound_data_folder_of_the_same_set(data, taught):
    assert [fault for fault in check(taught) if fault.severity == "error"] == []
    opened = PreparedData.open(taught)
    assert (opened.name, opened.patients_of) == (data.name, data.patients_of)
    assert opened.image_ids == data.image_ids
    assert (taught / "images.csv").read_bytes() == (data.folder / "images.csv").read_bytes()
    pixels = f"pixels-{SIZE}.u8"
    assert (taught / pixels).samefile(data.folder / pixels)
    np.testing.assert_array_equal(opened.has_region(), data.has_region())
    assert "pseudo regions of Mass on training images" in opened.notes[-1]
    dataset = json.loads((taught / "dataset.json").read_text())
    counted = dataset["counts"]["train"]["findings"][TEACHABLE]["images_with_pseudo_region"]
    assert counted == len(annotations(taught, "pseudo"))
    assert (taught / "teachers" / "Mass-0.safetensors").is_file()
    assert not list(taught.parent.glob("*.unfinished"))
    assert not (taught / ".lock").exists()


def test_a_damaged_net_is_found_by_data_check(data, tmp_path):
    out = tmp_path / "out"
    teach(data.folder, out, settings=TeacherSettings(epochs=1, size=16, folds=2), report=quiet)
    path = out / "teachers" / "Mass-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    (fault,) = [fault for fault in check(out) if fault.severity == "error"]
    assert fault.where == str(path)


def test_a_finding_with_too_few_regions_is_left_out_with_its_reason(data, taught):
    row = rows(taught)[RARE]
    assert row["reason"] == "training patients with a region: 2, for 3 folds 3 are needed"
    assert row["pseudo_regions"] == row["val_dice"] == ""
    with pytest.raises(DataError, match=r"too few for 3 folds \(Pleural/Scar: .*: 2"):
        teach(data.folder, taught.with_name("no"), findings=[RARE], settings=SETTINGS, report=quiet)
    assert not taught.with_name("no.unfinished").exists()


def test_the_seed_fixes_everything(data, taught, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    # whichever other findings are taught
    teach(data.folder, again, findings=[TEACHABLE], settings=SETTINGS, report=quiet)
    changed = TeacherSettings(epochs=3, size=16, seed=5)
    teach(data.folder, other, findings=[TEACHABLE], settings=changed, report=quiet)
    assert (again / "regions.json").read_bytes() == (taught / "regions.json").read_bytes()
    assert rows(again)[TEACHABLE] == rows(taught)[TEACHABLE]
    net = "teachers/Mass-0.safetensors"
    assert (again / net).read_bytes() == (taught / net).read_bytes()
    assert (other / "regions.json").read_bytes() != (again / "regions.json").read_bytes()


def test_an_interrupted_call_leaves_nothing_that_opens_and_continues(
    data, taught, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def stop_in_the_second_net(line, done, total):
        if done == SETTINGS.epochs + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(data.folder, out, settings=SETTINGS, report=stop_in_the_second_net)
    assert not out.exists()
    work = tmp_path / "out.unfinished"
    with pytest.raises(DataError):
        PreparedData.open(work)
    trained = []
    train = teachers.train_net

    def counted(*rest):
        trained.append(rest)
        return train(*rest)

    monkeypatch.setattr(teachers, "train_net", counted)
    (work / "teachers" / "Old-0.safetensors").write_bytes(b"of other findings")
    teach(data.folder, out, settings=SETTINGS, report=quiet)
    assert len(trained) == 2
    assert (out / "regions.json").read_bytes() == (taught / "regions.json").read_bytes()
    assert len(list((out / "teachers").iterdir())) == 3
    assert not work.exists()


def test_what_cannot_be_taught_is_refused(data, taught, tmp_path):
    with pytest.raises(ConfigError, match="exists already"):
        teach(data.folder, taught, settings=SETTINGS, report=quiet)
    with pytest.raises(DataError, match="has pseudo regions already"):
        teach(taught, tmp_path / "out", settings=SETTINGS, report=quiet)
    with pytest.raises(ConfigError, match=r"size 40: the images of .* at 32 px"):
        teach(data.folder, tmp_path / "out", settings=TeacherSettings(size=40), report=quiet)
    with pytest.raises(ConfigError, match="unknown finding 'Cold'"):
        teach(data.folder, tmp_path / "out", findings=["Cold"], settings=SETTINGS, report=quiet)
    assert not list(tmp_path.iterdir())


def test_nothing_drawn_is_no_region(data, tmp_path, monkeypatch):
    class Blank(torch.nn.Module):
        def forward(self, films):
            return torch.full_like(films, -5)

    monkeypatch.setattr(teachers, "train_net", lambda *rest: Blank())
    teach(data.folder, tmp_path / "out", settings=SETTINGS, report=quiet)
    assert annotations(tmp_path / "out", "pseudo") == []
    row = rows(tmp_path / "out")[TEACHABLE]
    assert (row["pseudo_regions"], float(row["val_dice"])) == ("0", 0)
    assert [fault for fault in check(tmp_path / "out") if fault.severity == "error"] == []


def test_pseudo_regions_are_never_written_on_validation_or_test(data, tmp_path, monkeypatch):
    everywhere = lambda data, finding, split: np.arange(len(data.image_ids))  # noqa: E731
    monkeypatch.setattr(pseudo_regions, "draw_regions", lambda *rest: [stray(data)])
    with pytest.raises(DataError, match=r"film10-0: a pseudo region of Mass .* split 'val'"):
        teach(data.folder, tmp_path / "out", settings=SETTINGS, report=quiet)
    monkeypatch.undo()
    # nor would a net of a training fold be asked about them
    monkeypatch.setattr(pseudo_regions, "present_images", everywhere)
    with pytest.raises(KeyError, match="patient10"):
        teach(data.folder, tmp_path / "out", settings=SETTINGS, report=quiet)
    assert not (tmp_path / "out").exists()


def stray(data: PreparedData):
    from dwarf_cxr.data.geometry import encode_mask
    from dwarf_cxr.data.pseudo import PseudoRegion

    mask = encode_mask(np.ones((HEIGHT, WIDTH), dtype=bool))
    index = int(data.indices("val")[0])
    return PseudoRegion.of(index, TEACHABLE, mask, annotator="teacher", teacher_dice=None)


def test_files_of_nets_are_no_two_alike():
    files = net_files(["Pleural/Scar", "pleural scar", "..", "Mass"], 2)
    assert files["Pleural/Scar"] == [f"teachers/Pleural-Scar-{fold}.safetensors" for fold in (0, 1)]
    assert files["pleural scar"][0] == "teachers/pleural-scar_2-0.safetensors"
    assert files[".."][0] == "teachers/finding-0.safetensors"
    flat = [file.lower() for each in files.values() for file in each]
    assert len(set(flat)) == 8


def test_the_command(data, tmp_path):
    out = tmp_path / "out"
    words = ["teachers", "--data", data.folder, "--out", out, "--epochs", 1, "--size", 16]
    result = CliRunner().invoke(app, list(map(str, [*words, "--seed", 2])))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["finding", "val", "Dice"]
    assert lines[1].startswith("Mass")
    assert lines[2].startswith("mean of 1")
    assert lines[3] == f"{RARE}: no teacher: {rows(out)[RARE]['reason']}"
    assert "--regions pseudo" in lines[4]
    checked = CliRunner().invoke(app, ["data", "check", str(out)])
    assert checked.exit_code == 0
    sheet = tmp_path / "sheet.png"
    shown = CliRunner().invoke(
        app, ["data", "show", str(out), "--out", str(sheet), "--regions", "pseudo"]
    )
    assert shown.exit_code == 0
    assert sheet.stat().st_size > 0


def test_teachers_judged_on_one_film_have_no_interval():
    one = Quality("Mass", Estimate(0.25, 0.25, 0.25, 1), 0.4, 5, 6, 3)
    several = Quality("Nodule", Estimate(0.5, 0.4, 0.6, 4), 0.4, 5, 6, 3)
    undefined = Quality("Edema", Estimate(None, reason="no film"), 0.4, 5, 6, 3)
    lines = table([one, several, undefined], Estimate(0.375, None, None, 2))
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "Mass 0.250 (no interval) 1 0.400 5 3/6",
        "Nodule 0.500 (0.400 to 0.600) 4 0.400 5 3/6",
        "Edema - 0 0.400 5 3/6",
        "mean of 2 0.375 (no interval)",
    ]
