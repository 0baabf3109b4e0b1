import csv
import json
import os

import numpy as np
import pytest

from dwarf_cxr.data.check import check
from dwarf_cxr.data.geometry import encode_mask, rasterise
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.review.annotation import Assessment, MarkedRegion, Suggested
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.writing import write
from tests.review.made import ABSENT, HEIGHT, WIDTH, box, present, triangle, write_data


@pytest.fixture
def review(tmp_path):
    write_data(tmp_path / "data")
    return begin(
        tmp_path / "data-review",
        tmp_path / "data",
        readers=["anna", "ben"],
        adjudicator="carla",
    )


@pytest.fixture
def ledger(review):
    ledger = Ledger(review.database)
    yield ledger
    ledger.close()


def say(ledger, film, reader, **words):
    state = ledger.state(film, reader)
    key = f"{reader}-{state.version}"
    ledger.edit(film, reader, words, version=state.version, key=key)


def labels(folder):
    with (folder / "images.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_labels_and_regions_become_the_readers(review, ledger, tmp_path):
    before = everything(review.data.folder)
    mask = encode_mask(np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.1)
    drawn = triangle((5.5, 6.25), (40.0, 8.0), (20.0, 30.125))
    accepted = MarkedRegion(box(3, 4, 30, 44), "corrected", Suggested("run", 1))
    say(ledger, 0, "anna", Mass=present(drawn), Effusion=present(mask), Nodule=Assessment("unsure"))
    say(ledger, 1, "anna", Effusion=ABSENT, Mass=Assessment("present", (accepted,)))
    out = tmp_path / "new"
    done = write(review, ledger, out)
    assert (done.films, done.present, done.absent, done.unsure, done.undecided) == (2, 3, 1, 1, 0)
    assert done.regions == 3
    rows = labels(out)
    old = labels(review.data.folder)
    assert [rows[0][name] for name in ("Mass", "Effusion", "Nodule")] == ["1", "1", ""]
    assert [rows[1][name] for name in ("Mass", "Effusion", "Nodule")] == ["1", "0", "0"]
    assert rows[2:] == old[2:]
    assert done.changed_labels == 4
    data = PreparedData.open(out)
    (region,) = data.regions(0, "Mass")
    assert (region.annotator, region.kind) == ("anna", "expert")
    assert region.shape.points.tolist() == drawn.points.tolist()
    (painted,) = data.regions(0, "Effusion")
    assert painted.shape.counts == mask.counts
    (corrected,) = data.regions(1, "Mass")
    assert corrected.shape == accepted.shape
    # what nobody saw is as it was
    assert [one.annotator for one in data.regions(2, "Nodule")] == ["first"]
    assert everything(review.data.folder) == before
    faults = check(out)
    # so few films leave splits without a finding, which is only warned of
    assert [one for one in faults if one.severity == "error" or "not labelled 1" in one.what] == []
    assert np.array_equal(data.pixels, review.data.pixels)
    assert (
        os.stat(out / "pixels-64.u8").st_ino == os.stat(review.data.folder / "pixels-64.u8").st_ino
    )
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["counts"]["train"]["findings"]["Mass"]["images_with_region"] == 2
    assert dataset["review"]["readers"] == ["anna"]
    assert data.fingerprint != review.data.fingerprint


def test_pycocotools_reads_the_regions(review, ledger, tmp_path):
    from pycocotools.coco import COCO

    shapes = [triangle((5.5, 6.25), (40.0, 8.0), (20.0, 60.125))]
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[10:50, 3:20] = True
    say(ledger, 0, "anna", Mass=present(*shapes), Effusion=present(encode_mask(pixels)))
    write(review, ledger, tmp_path / "new")
    coco = COCO(str(tmp_path / "new" / "regions.json"))
    by_name = {one["name"]: one["id"] for one in coco.loadCats(coco.getCatIds())}
    (mass,) = coco.loadAnns(coco.getAnnIds(imgIds=[1], catIds=[by_name["Mass"]]))
    (effusion,) = coco.loadAnns(coco.getAnnIds(imgIds=[1], catIds=[by_name["Effusion"]]))
    found = coco.annToMask(mass).astype(bool)
    ours = rasterise(shapes, (WIDTH, HEIGHT))
    assert (found & ours).sum() / (found | ours).sum() > 0.9
    assert np.array_equal(coco.annToMask(effusion).astype(bool), pixels)


def test_present_without_a_word_on_where_keeps_the_regions(review, ledger, tmp_path):
    say(ledger, 0, "anna", Mass=Assessment("present"))
    refused = MarkedRegion(box(20, 30, 50, 60), "rejected", Suggested("data", 0))
    say(ledger, 2, "anna", Nodule=Assessment("present", (refused,)))
    write(review, ledger, tmp_path / "new")
    data = PreparedData.open(tmp_path / "new")
    assert [one.annotator for one in data.regions(0, "Mass")] == ["first"]
    assert data.regions(2, "Nodule") == ()


def test_two_readers_and_a_third(review, ledger, tmp_path):
    here, there = box(10, 10, 40, 40), box(12, 10, 42, 40)
    say(ledger, 0, "anna", Mass=present(here), Effusion=present(here))
    say(ledger, 0, "ben", Mass=present(there), Effusion=ABSENT)
    done = write(review, ledger, tmp_path / "torn")
    assert (done.present, done.undecided) == (1, 1)
    data = PreparedData.open(tmp_path / "torn")
    (both,) = data.regions(0, "Mass")
    assert (both.annotator, both.shape) == ("anna+ben", box(12, 10, 40, 40))
    assert np.isnan(data.labels[0, 1])
    say(ledger, 0, "carla", Effusion=present(there))
    write(review, ledger, tmp_path / "decided")
    decided = PreparedData.open(tmp_path / "decided")
    assert decided.labels[0, 1] == 1
    assert [one.annotator for one in decided.regions(0, "Effusion")] == ["carla"]
    write(review, ledger, tmp_path / "ben", reader="ben")
    alone = PreparedData.open(tmp_path / "ben")
    assert alone.labels[0, 1] == 0
    assert [one.annotator for one in alone.regions(0, "Mass")] == ["ben"]
    with pytest.raises(ConfigError, match="anna, ben, carla"):
        write(review, ledger, tmp_path / "nobody", reader="dora")


def test_regions_that_readers_dispute_wait_for_the_third(review, ledger, tmp_path):
    say(ledger, 0, "anna", Mass=present(box(5, 5, 25, 25)))
    say(ledger, 0, "ben", Mass=present(box(50, 60, 80, 90), box(5, 60, 25, 90)))
    done = write(review, ledger, tmp_path / "torn")
    assert (done.present, done.regions, done.open_regions) == (1, 0, 3)
    assert "3 regions left out" in done.left_out[0]
    torn = PreparedData.open(tmp_path / "torn")
    assert torn.regions(0, "Mass") == ()
    assert torn.labels[0, 0] == 1
    assert (
        "3 regions left out"
        in json.loads((tmp_path / "torn/dataset.json").read_text())["notes"][-1]
    )
    say(ledger, 0, "carla", Mass=present(box(50, 60, 80, 90)))
    decided = write(review, ledger, tmp_path / "decided")
    assert (decided.regions, decided.open_regions, decided.left_out) == (1, 0, ())


def taken(shape, by, origin="accepted"):
    return Assessment("present", (MarkedRegion(shape, origin, Suggested(by, 0)),))


def test_no_model_is_scored_against_its_own_outlines(review, ledger, tmp_path):
    outline = triangle((5, 5), (40, 8), (20, 30))
    assert review.data.splits[0:4] == ("train", "train", "val", "test")
    for film in range(4):
        say(ledger, film, "anna", Mass=taken(outline, "run-0123"))
    say(ledger, 2, "anna", Nodule=taken(outline, "run-0123"))
    say(ledger, 3, "anna", Effusion=taken(outline, "run-0123", "corrected"), Nodule=present())
    done = write(review, ledger, tmp_path / "new")
    assert (done.present, done.regions, done.own_outlines) == (7, 3, 3)
    assert "3 regions of val and test films left out" in done.left_out[0]
    data = PreparedData.open(tmp_path / "new")
    assert [len(data.regions(film, "Mass")) for film in range(4)] == [1, 1, 0, 0]
    assert data.labels[:4, 0].tolist() == [1] * 4
    # what the data said before stands
    assert [one.annotator for one in data.regions(2, "Nodule")] == ["first"]
    assert [one.annotator for one in data.regions(3, "Effusion")] == ["anna"]


def test_an_outline_of_the_model_does_not_come_in_by_way_of_the_third(review, ledger, tmp_path):
    outline, own = triangle((5, 5), (40, 8), (20, 30)), box(50, 60, 80, 90)
    say(ledger, 3, "anna", Mass=taken(outline, "run-0123"), Effusion=taken(outline, "run-0123"))
    say(ledger, 3, "ben", Mass=ABSENT, Effusion=present(own))
    say(ledger, 3, "carla", Mass=taken(outline, "reader-1"), Effusion=taken(own, "reader-2"))
    done = write(review, ledger, tmp_path / "new")
    assert (done.regions, done.own_outlines) == (1, 1)
    data = PreparedData.open(tmp_path / "new")
    assert data.regions(3, "Mass") == ()
    assert [one.shape for one in data.regions(3, "Effusion")] == [own]


def test_an_outline_that_two_readers_took_is_still_the_models(review, ledger, tmp_path):
    outline = triangle((5, 5), (40, 8), (20, 30))
    for reader in ("anna", "ben"):
        say(ledger, 3, reader, Mass=taken(outline, "run-0123"))
    assert write(review, ledger, tmp_path / "new").own_outlines == 1


def test_nothing_is_written_over_or_without_reason(review, ledger, tmp_path):
    with pytest.raises(ConfigError, match="nothing has been assessed"):
        write(review, ledger, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    say(ledger, 0, "anna", Mass=ABSENT)
    (tmp_path / "new").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        write(review, ledger, tmp_path / "new")
    with pytest.raises(ConfigError, match="stays as it is"):
        write(review, ledger, review.data.folder / "new")


def test_a_writing_that_fails_leaves_nothing(review, ledger, tmp_path, monkeypatch):
    say(ledger, 0, "anna", Mass=ABSENT)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dwarf_cxr.review.writing.write_json_object", full)
    with pytest.raises(OSError, match="No space"):
        write(review, ledger, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data-films", "data-review"]
