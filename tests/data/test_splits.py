import hashlib
from pathlib import Path

import numpy as np
import pytest

from dwarf_cxr.data.records import Box, Radiograph, Region
from dwarf_cxr.data.splits import (
    assign_splits,
    iterative_stratification,
    patients_in_two_splits,
    read_splits,
    refuse_shared_patients,
    splits_sha256,
)
from dwarf_cxr.errors import DataError

FINDINGS = ("Mass", "Edema", "Hernia")


def film(number, patient=None, split=None, present=(), boxed=()):
    return Radiograph(
        image_id=f"i{number}",
        patient_id=f"p{number if patient is None else patient}",
        path=Path(f"i{number}.png"),
        labels={finding: finding in present for finding in FINDINGS},
        regions=tuple(Region(finding, Box(0.0, 0.0, 1.0, 1.0)) for finding in boxed),
        split=split,
    )


def cohort(seed, images=400):
    rng = np.random.default_rng(seed)
    films = []
    for number in range(images):
        present = [f for f, p in zip(FINDINGS, (0.3, 0.15, 0.04), strict=True) if rng.random() < p]
        boxed = [f for f in present if rng.random() < 0.5]
        films.append(film(number, int(rng.integers(250)), present=present, boxed=boxed))
    return films


def test_made_splits_keep_patients_together_and_findings_in_proportion():
    films = cohort(5)
    splits, notes = assign_splits(films, FINDINGS, seed=3)
    assert patients_in_two_splits([one.patient_id for one in films], splits) == {}
    assert "seed 3" in notes[0]
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert splits.count(split) / len(films) == pytest.approx(share, abs=0.03)
        inside = [one for one, its in zip(films, splits, strict=True) if its == split]
        for finding in FINDINGS:
            total = sum(one.labels[finding] for one in films)
            assert abs(sum(one.labels[finding] for one in inside) - share * total) <= 2.5
        boxed = sum(bool(one.regions) for one in films)
        assert abs(sum(bool(one.regions) for one in inside) - share * boxed) <= 5


def test_made_splits_depend_on_the_seed_and_not_on_the_order():
    films = cohort(6, images=80)
    first, _ = assign_splits(films, FINDINGS, seed=1)
    assert assign_splits(films, FINDINGS, seed=1)[0] == first
    assert assign_splits(films, FINDINGS, seed=2)[0] != first
    backwards, _ = assign_splits(films[::-1], FINDINGS, seed=1)
    assert backwards[::-1] == first


@pytest.mark.parametrize("images", [3, 4, 7])
def test_a_handful_of_patients_fills_every_split(images):
    splits, _ = assign_splits([film(n) for n in range(images)], FINDINGS)
    assert set(splits) == {"train", "val", "test"}


def test_validation_is_carved_from_train_and_test_is_kept():
    films = [
        film(n, split="test" if n < 20 else "train", present=FINDINGS[:1] if n % 4 == 0 else ())
        for n in range(120)
    ]
    splits, notes = assign_splits(films, FINDINGS)
    assert splits[:20] == ("test",) * 20
    assert splits[20:].count("val") == 10
    carved = [one for one, split in zip(films, splits, strict=True) if split == "val"]
    assert 2 <= sum(one.labels["Mass"] for one in carved) <= 3
    assert "10 of 100 training images" in notes[0]


def test_given_splits_go_before_those_of_the_source_and_ids_may_have_suffixes():
    films = [film(0, split="train"), film(1, split="train"), film(2, split="train")]
    given = {"i0.png": "test", "i1": "train", "i2.jpg": "val", "other": "test"}
    splits, notes = assign_splits(films, FINDINGS, given=given)
    assert splits == ("test", "train", "val")
    assert notes == ("1 images of the given splits are not in the data set",)


def test_images_without_split_are_named():
    with pytest.raises(DataError, match="1 of 2 images have no split: i1;"):
        assign_splits([film(0, split="train"), film(1)], FINDINGS)
    with pytest.raises(DataError, match="2 of 2 images have no split: i0, i1;"):
        assign_splits([film(0), film(1)], FINDINGS, given={"i7": "train"})


def test_unknown_splits_are_refused():
    with pytest.raises(DataError, match="unknown split holdout"):
        assign_splits([film(0, split="holdout"), film(1, split="train")], FINDINGS)


@pytest.mark.parametrize("splits", [("test", "val", "test"), ("test", "test", "test")])
def test_without_training_images_nothing_is_carved_and_it_is_said(splits):
    films = [film(number, split=split) for number, split in enumerate(splits)]
    assert assign_splits(films, FINDINGS) == (
        splits,
        ("no image is in the split 'train': the data serve for evaluation only",),
    )


def test_a_patient_in_two_splits_is_refused_by_id():
    films = [film(0, 7, "train"), film(1, 7, "test"), film(2, 8, "val"), film(3, 9, "test")]
    with pytest.raises(DataError, match=r"1 patients are in two splits: p7 \(test and train\)"):
        assign_splits(films, FINDINGS)
    with pytest.raises(DataError, match="p7"):
        refuse_shared_patients([one.patient_id for one in films], ["val", "test", "val", "test"])


def test_split_tables(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_bytes(b"\xef\xbb\xbfImage Index,Patient ID,split\r\na.png,1,Train\r\nb,2,valid\r\n")
    assert read_splits(path) == {"a": "train", "b": "val"}
    path.write_text("image_id,split\na,train\na.png,test\nc,later\n")
    with pytest.raises(DataError) as caught:
        read_splits(path)
    assert "line 3: image 'a' is listed twice" in str(caught.value)
    assert "line 4: unknown split 'later'" in str(caught.value)
    path.write_text("name,split\na,train\n")
    with pytest.raises(DataError, match="no column 'image_id' or 'Image Index'"):
        read_splits(path)


def test_splits_hash_is_of_the_assignment_and_not_of_its_order():
    want = hashlib.sha256(b"a\ttrain\nb\ttest\n").hexdigest()
    assert splits_sha256(["a", "b"], ["train", "test"]) == want
    assert splits_sha256(["b", "a"], ["test", "train"]) == want
    assert splits_sha256(["a", "b"], ["test", "train"]) != want


def test_stratification_never_uses_a_part_without_share():
    rng = np.random.default_rng()
    counts = rng.integers(0, 3, (40, 5))
    parts = iterative_stratification(counts, np.ones(40, np.int64), (0.5, 0.0, 0.5), rng)
    assert set(parts) == {0, 2}


def test_patients_of_several_splits_are_told_in_order_with_all_their_splits():
    patients = ["b", "a", "c", "a", "b", "b", "d", "d"]
    splits = ["val", "train", "test", "test", "train", "test", "val", "val"]
    shared = patients_in_two_splits(patients, splits)
    assert list(shared.items()) == [("b", ("test", "train", "val")), ("a", ("test", "train"))]
