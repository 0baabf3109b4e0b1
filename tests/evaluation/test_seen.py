"""Who and what a model was trained on is known again, whatever the set is called."""

import dataclasses

import cv2
import numpy as np
import pytest

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.sources import ReadOptions, read_source
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation.calibration import fit_card
from dwarf_cxr.evaluation.evaluate import refuse_seen_patients
from dwarf_cxr.models.outputs import Outputs
from dwarf_cxr.models.vlm import build_classifier
from tests.tiny import SIZE, settings, write_bert, write_vit


def write_csv(folder, splits, *, seed, patients=None):
    """A set of one's own: films of noise, patients 1, 2, … and these splits."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = ["image_id,patient_id,split,Mass"]
    for number, split in enumerate(splits):
        cv2.imwrite(str(folder / f"f{number}.png"), rng.integers(0, 256, (12, 9), dtype=np.uint8))
        patient = number + 1 if patients is None else patients[number]
        rows.append(f"f{number},{patient},{split},{number % 2}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def prepared(folder, out, **options) -> PreparedData:
    source = read_source("csv", folder, out=out, options=ReadOptions(**options))
    return prepare(source, out, size=8, progress=lambda done, total: None)


def card_of(data, tmp_path):
    """The card of a model trained on `data`, as training makes it."""
    indices = data.indices("val")
    outputs = Outputs(
        np.full((len(indices), 1), 0.5), np.ones((len(indices), 1, 2, 2), np.float32), {}
    )
    model = build_classifier(
        settings(write_vit(tmp_path / "vit"), write_bert(tmp_path / "bert")).model,
        data.findings,
        SIZE,
        seed=0,
    )
    return fit_card(model, data, outputs, np.zeros((1, 8, 8), np.float32), method="dwarf")


SPLITS = ("train", "train", "val", "test", "test")
OTHERS = ("test", "val", "test", "train", "train")


def test_a_copy_under_another_name_and_other_splits_is_known_by_its_files(tmp_path):
    card = card_of(prepared(write_csv(tmp_path / "a", SPLITS, seed=1), tmp_path / "A"), tmp_path)
    renamed = ("x", "y", "z", "u", "v")
    copy = prepared(write_csv(tmp_path / "b", OTHERS, seed=1, patients=renamed), tmp_path / "B")
    with pytest.raises(DataError, match="2 image files of split 'test' were in the training or"):
        refuse_seen_patients(card, copy, "test")
    with pytest.raises(DataError, match=r"1 image files .*trained on a;"):
        refuse_seen_patients(card, copy, "val")
    refuse_seen_patients(card, copy, "train")


def test_the_card_says_how_the_findings_were_named(tmp_path):
    data = prepared(write_csv(tmp_path / "a", SPLITS, seed=1), tmp_path / "A")
    assert card_of(data, tmp_path).harmonised == {}
    joined = dataclasses.replace(data, harmonised={"Lump": ("Mass", "Nodule")})
    assert card_of(joined, tmp_path).harmonised == {"Lump": ["Mass", "Nodule"]}
    older = dataclasses.replace(data, harmonised=None)
    assert card_of(older, tmp_path).harmonised is None


def test_other_films_of_the_same_patients_are_known_by_the_patients(tmp_path):
    card = card_of(prepared(write_csv(tmp_path / "a", SPLITS, seed=1), tmp_path / "A"), tmp_path)
    again = prepared(write_csv(tmp_path / "c" / "a", OTHERS, seed=2), tmp_path / "C")
    with pytest.raises(DataError, match=r"2 patients of split 'test' .*within 'a': .*--name"):
        refuse_seen_patients(card, again, "test")
    refuse_seen_patients(card, again, "train")


def test_two_hospitals_with_the_same_numbers_are_told_apart_by_name(tmp_path):
    here = write_csv(tmp_path / "here" / "films", SPLITS, seed=1)
    there = write_csv(tmp_path / "there" / "films", OTHERS, seed=2)
    card = card_of(prepared(here, tmp_path / "A"), tmp_path)
    with pytest.raises(DataError, match="within 'films'"):
        refuse_seen_patients(card, prepared(there, tmp_path / "B"), "test")
    named = prepared(there, tmp_path / "C", name="There")
    assert (named.name, named.patients_of) == ("There", "There")
    refuse_seen_patients(card, named, "test")


def test_the_same_name_is_the_same_people_in_any_folder(tmp_path):
    here = write_csv(tmp_path / "one", SPLITS, seed=1)
    card = card_of(prepared(here, tmp_path / "A", name="Ours"), tmp_path)
    there = write_csv(tmp_path / "two", OTHERS, seed=2)
    with pytest.raises(DataError, match="within 'Ours'"):
        refuse_seen_patients(card, prepared(there, tmp_path / "B", name="Ours"), "test")
    refuse_seen_patients(card, prepared(there, tmp_path / "C"), "test")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="--name"):
        prepared(write_csv(tmp_path / "a", SPLITS, seed=1), tmp_path / "A", name=name)
