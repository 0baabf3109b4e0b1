import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dwarf_cxr.data.check import check
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Region
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from tests.tiny import add_pseudo


@pytest.fixture
def folder(source, tmp_path):
    return prepare(source, tmp_path / "data", size=8).folder


def test_folders_from_before_sets_shared_patients_are_read(source, tmp_path):
    shared = dataclasses.replace(source, patients_of="others")
    data = prepare(shared, tmp_path / "data", size=8)
    assert (data.name, data.patients_of) == ("tiny", "others")
    path = tmp_path / "data" / "dataset.json"
    content = json.loads(path.read_text())
    del content["patients_of"]
    path.write_text(json.dumps(content))
    assert PreparedData.open(path.parent).patients_of == "tiny"


def test_files_are_known_by_the_first_64_bits_of_their_hash(folder, source):
    expected = [
        int(hashlib.sha256(one.path.read_bytes()).hexdigest()[:16], 16)
        for one in source.radiographs
    ]
    hashes = PreparedData.open(folder).file_hashes
    assert hashes.dtype == np.int64
    assert [int(one) % 2**64 for one in hashes] == expected
    restamp(folder, "images.csv", lambda text: text.replace(f"{expected[0]:016x}", "x" * 16))
    with pytest.raises(DataError, match=r"line 2: 'x{16}.*' is no SHA-256"):
        PreparedData.open(folder)


def test_what_was_prepared_is_opened(folder, source):
    data = PreparedData.open(folder)
    assert data.name == "tiny"
    assert data.size == 8
    assert data.image_ids == tuple(f"film{n}" for n in range(6))
    assert data.sources == tuple(str(one.path) for one in source.radiographs)
    assert data.texts == ("A mass, in the left lung.", None, None, None, None, None)
    np.testing.assert_array_equal(data.widths, [24] * 6)
    np.testing.assert_array_equal(data.heights, [16] * 6)
    np.testing.assert_array_equal(
        data.labels, [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, np.nan]]
    )
    assert data.pixels.shape == (6, 8, 8)
    assert not data.pixels.flags.writeable


def test_the_fingerprint_knows_the_content_but_not_the_place(source, tmp_path):
    def prepared(radiographs, name):
        return prepare(
            dataclasses.replace(source, radiographs=tuple(radiographs)), tmp_path / name, size=8
        ).fingerprint

    here = prepared(source.radiographs, "here")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    there = [
        dataclasses.replace(one, path=Path(shutil.copy(one.path, moved)))
        for one in source.radiographs
    ]
    assert prepared(there, "there") == here
    first, *rest = source.radiographs
    relabelled = dataclasses.replace(first, labels={**first.labels, "Edema": True})
    assert prepared([relabelled, *rest], "relabelled") != here
    unregioned = [dataclasses.replace(one, regions=()) for one in source.radiographs]
    assert prepared(unregioned, "unregioned") != here


def test_indices_of_splits(folder):
    data = PreparedData.open(folder)
    np.testing.assert_array_equal(data.indices("val"), [2, 3])
    assert data.indices("val").dtype == np.int64
    assert data.indices("nowhere").shape == (0,)


def test_regions_and_their_coverage(folder):
    data = PreparedData.open(folder)
    (region,) = data.regions(4, "Mass")
    assert region.shape == Box(2.0, 3.0, 10.0, 9.0)
    assert region.annotator == "reader 1"
    assert data.regions(4, "Edema") == ()
    assert data.regions(1, "Mass") == ()
    assert set(zip(*np.nonzero(data.has_region()), strict=True)) == {(0, 0), (4, 0)}
    share = data.coverage(4, "Mass", 5)
    assert share.dtype == np.float32
    assert share.mean() * 24 * 16 == pytest.approx(48, rel=1e-5)
    assert not data.coverage(1, "Mass", 5).any()


def test_restricting_orders_the_findings(folder):
    data = PreparedData.open(folder)
    swapped = data.restrict(["Edema", "Mass"])
    assert swapped.findings == ("Edema", "Mass")
    np.testing.assert_array_equal(swapped.labels, data.labels[:, ::-1])
    np.testing.assert_array_equal(swapped.has_region(), data.has_region()[:, ::-1])
    assert data.findings == ("Mass", "Edema")
    with pytest.raises(ConfigError, match="unknown finding 'Cold'"):
        data.restrict(["Cold"])


@pytest.mark.parametrize("name", ["images.csv", "regions.json"])
def test_a_changed_or_missing_table_is_refused(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DataError, match=rf"{name}: changed since it was prepared.*prepare"):
        PreparedData.open(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; prepare"):
        PreparedData.open(folder)


def test_cut_or_missing_pixels_are_refused(folder):
    path = folder / "pixels-8.u8"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"holds 379 bytes where 6 images of 8×8 need 384"):
        PreparedData.open(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"pixels-8\.u8: missing"):
        PreparedData.open(folder)


def test_a_missing_or_foreign_dataset_file_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="the data is not there; prepare"):
        PreparedData.open(tmp_path / "nowhere")
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": "other"}))
    with pytest.raises(DataError, match="not of the format"):
        PreparedData.open(folder)
    del content["size"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the field 'size' is missing"):
        PreparedData.open(folder)
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        PreparedData.open(folder)
    path.unlink()
    with pytest.raises(DataError, match="was not prepared to the end"):
        PreparedData.open(folder)


def test_the_fingerprint_knows_the_findings_names(source, tmp_path):
    def renamed(name):
        radiographs = tuple(
            dataclasses.replace(
                one,
                labels={name if f == "Edema" else f: present for f, present in one.labels.items()},
            )
            for one in source.radiographs
        )
        other = dataclasses.replace(source, findings=("Mass", name), radiographs=radiographs)
        return prepare(other, tmp_path / name, size=8).fingerprint

    edema, again, cold = renamed("Edema"), prepare(source, tmp_path / "a", size=8), renamed("Cold")
    assert edema == again.fingerprint
    assert edema != cold


def test_the_fingerprint_knows_every_column_but_the_source(source, tmp_path):
    def changed(name, **fields):
        first, *rest = source.radiographs
        others = (dataclasses.replace(first, **fields), *rest)
        other = dataclasses.replace(source, radiographs=others)
        return prepare(other, tmp_path / name, size=8).fingerprint

    found = [
        changed("same"),
        changed("id", image_id="other"),
        changed("patient", patient_id="other"),
        changed("split", split="val"),
        changed("text", text="Another."),
        changed("label", labels={"Mass": True}),
        changed("region", regions=(Region("Mass", Box(2.0, 3.0, 10.0, 9.5), "reader 1"),)),
        changed("annotator", regions=(Region("Mass", Box(2.0, 3.0, 10.0, 9.0), "reader 2"),)),
    ]
    assert len(set(found)) == len(found)


def restamp(folder, name, change):
    """Change a table and its SHA-256 in dataset.json alike."""
    path = folder / name
    path.write_text(change(path.read_text()))
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(dataset))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("images.csv", ",1,0\n", ",1,x\n", r"line 2, column 'Edema': label 'x'"),
        ("images.csv", ",24,16,", ",24,-16,", r"line 2, column 'height': '-16'"),
        ("images.csv", ",24,16,", ",24,", r"line 2: 9 fields where the header has 10"),
        ("regions.json", '"annotator"', '"by"', r"regions\.json: the field 'annotator' is missing"),
        ("regions.json", '"category_id": 1', '"category_id": 9', r"regions\.json: the field 9"),
        ("regions.json", '"image_id": 5', '"image_id": 99', r"regions\.json: the field 99"),
        ("regions.json", '"images": [', '"films": [', r"regions\.json: the field 1 is missing"),
        ("regions.json", '"annotations": [', '"annotations": [3, ', r"regions\.json"),
        ("regions.json", "{", "[", r"regions\.json: not valid JSON"),
    ],
)
def test_tables_that_make_no_sense_are_one_clear_error(folder, name, old, new, message):
    restamp(folder, name, lambda text: text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        PreparedData.open(folder)


def test_fewer_images_with_regions_than_rows_are_refused(folder):
    def without_last(text):
        document = json.loads(text)
        document["images"].pop()
        return json.dumps(document)

    restamp(folder, "regions.json", without_last)
    with pytest.raises(DataError, match=r"5 images where images\.csv lists 6"):
        PreparedData.open(folder)


FAR = Box(20.0, 12.0, 24.0, 16.0)


@pytest.fixture
def with_pseudo(folder, tmp_path):
    """Film 0 and film 4 have a Mass by an expert; the teachers' are on 0, 2 (no expert) and 1."""
    places = {(0, "Mass"): FAR, (2, "Mass"): FAR, (1, "Edema"): FAR}
    return PreparedData.open(add_pseudo(PreparedData.open(folder), tmp_path / "pseudo", places))


def marked(data):
    return {(int(i), data.findings[f]) for i, f in np.argwhere(data.has_region())}


def test_only_experts_regions_count_unless_others_are_asked_for(folder, with_pseudo):
    plain = PreparedData.open(folder)
    assert with_pseudo.region_source == "expert"
    assert with_pseudo.fingerprint != plain.fingerprint
    np.testing.assert_array_equal(with_pseudo.has_region(), plain.has_region())
    for index in range(6):
        for finding in plain.findings:
            expected = plain.regions(index, finding)
            assert with_pseudo.regions(index, finding) == expected
            assert all(region.kind == "expert" for region in expected)
            np.testing.assert_array_equal(
                with_pseudo.coverage(index, finding, 5), plain.coverage(index, finding, 5)
            )


def test_pseudo_regions_alone(with_pseudo):
    data = with_pseudo.with_regions("pseudo")
    assert marked(data) == {(0, "Mass"), (2, "Mass"), (1, "Edema")}
    (region,) = data.regions(0, "Mass")
    assert (region.shape, region.kind, region.annotator) == (FAR, "pseudo", "teacher")
    assert data.regions(4, "Mass") == ()
    assert data.coverage(0, "Mass", 4)[3, 3] > 0
    assert data.coverage(0, "Mass", 4)[1, 0] == 0


def test_both_takes_a_teachers_region_only_where_no_expert_drew(with_pseudo):
    data = with_pseudo.with_regions("both")
    assert marked(data) == {(0, "Mass"), (4, "Mass"), (2, "Mass"), (1, "Edema")}
    kinds = {place: {one.kind for one in data.regions(*place)} for place in marked(data)}
    assert kinds[0, "Mass"] == {"expert"}
    assert kinds[4, "Mass"] == {"expert"}
    assert kinds[2, "Mass"] == {"pseudo"}
    assert kinds[1, "Edema"] == {"pseudo"}
    assert data.coverage(0, "Mass", 4)[3, 3] == 0


def test_the_choice_of_regions_can_be_undone_and_outlives_restriction(with_pseudo):
    data = with_pseudo.with_regions("pseudo").restrict(["Edema"])
    assert marked(data) == {(1, "Edema")}
    assert marked(data.with_regions("expert")) == set()


def test_a_region_of_an_unknown_kind_is_refused(folder, with_pseudo):
    restamp(with_pseudo.folder, "regions.json", lambda text: text.replace("pseudo", "hearsay"))
    with pytest.raises(DataError, match=r"annotation 3: kind 'hearsay'; write 'expert' or"):
        PreparedData.open(with_pseudo.folder)
    assert sum("kind 'hearsay'" in str(fault) for fault in check(with_pseudo.folder)) == 3
