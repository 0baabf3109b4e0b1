"""Unions of findings against naive loops; which findings meet which."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwarf_cxr.data.harmonise import (
    FindingUnion,
    agree,
    harmonise_data,
    harmonise_source,
    shared_unions,
    union_label,
    union_labels,
    with_merged,
)
from dwarf_cxr.data.label_map import LabelMap, load_label_map
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.errors import ConfigError, DataError

PACKAGED = load_label_map()
MADE = LabelMap(
    sets={
        "left": {"Rib": ("Broken",), "Clavicle": ("Broken",), "Wet": ("Water",)},
        "right": {"Both": ("Water", "Air"), "Fluid": ("Water",), "Same": ("Other",)},
    },
    merged={"Lump": ("Small", "Large")},
    source="made",
)


def naive_label(labels):
    """The rule, word by word."""
    for label in labels:
        if label == 1:
            return 1.0
    for label in labels:
        if label != 0:
            return np.nan
    return 0.0


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_labels_of_a_union_are_those_of_a_loop(parts):
    rows = list(itertools.product([0.0, 1.0, np.nan], repeat=parts))
    labels = np.array(rows, dtype=np.float32)
    expected = [naive_label(row) for row in rows]
    np.testing.assert_array_equal(union_labels(labels, complete=True), expected)
    with_unknown = [naive_label([*row, np.nan]) for row in rows]
    np.testing.assert_array_equal(union_labels(labels, complete=False), with_unknown)
    words = {0.0: False, 1.0: True}
    for row, label in zip(rows, expected, strict=True):
        assert union_label([words.get(one) for one in row]) is words.get(label)


def test_no_image_at_all():
    assert union_labels(np.empty((0, 2), np.float32), complete=True).shape == (0,)


def test_a_part_that_nobody_looked_for_is_missing():
    unions = shared_unions(("Rib", "Wet", "New"), MADE.names_of("left"))
    assert unions == {
        "Broken": FindingUnion(("Rib",), ("Clavicle",)),
        "Water": FindingUnion(("Wet",)),
        "New": FindingUnion(("New",)),
    }


def test_the_shared_name_alone_is_the_shared_finding():
    names = {"Emphysema": ("Emphysema",), "Bullous": ("Emphysema",)}
    assert shared_unions(("Emphysema",), names) == {"Emphysema": FindingUnion(("Emphysema",))}
    both = {"Emphysema": FindingUnion(("Bullous", "Emphysema"))}
    assert shared_unions(("Bullous", "Emphysema"), names) == both
    assert shared_unions(("Bullous",), names) == {
        "Emphysema": FindingUnion(("Bullous",), ("Emphysema",))
    }


def test_a_merged_finding_is_made_of_what_is_there():
    unions = shared_unions(("Large", "Small"), {})
    assert with_merged(unions, MADE.merged)["Lump"] == FindingUnion(("Small", "Large"))
    assert with_merged({"Large": FindingUnion(("Large",))}, MADE.merged)["Lump"] == FindingUnion(
        ("Large",), ("Small",)
    )
    assert "Lump" not in with_merged({"Rib": FindingUnion(("Rib",))}, MADE.merged)


def shared_of(agreement):
    return {one.name: (one.model, one.data) for one in agreement.shared}


def test_vindr_meets_chestx_det():
    vindr = ("Rib fracture", "Nodule/Mass", "ILD", "Pleural effusion", "Clavicle fracture")
    chest_det = ("Nodule", "Effusion", "Mass", "Fracture", "Diffuse Nodule")
    there = agree(chest_det, "ChestX-Det", vindr, "VinDr-CXR", PACKAGED)
    assert shared_of(there) == {
        "Nodule/Mass": (("Nodule", "Mass"), FindingUnion(("Nodule/Mass",))),
        "Effusion": (("Effusion",), FindingUnion(("Pleural effusion",))),
        "Fracture": (("Fracture",), FindingUnion(("Rib fracture", "Clavicle fracture"))),
    }
    assert list(shared_of(there)) == ["Nodule/Mass", "Effusion", "Fracture"]
    assert (there.unmatched, there.untrained) == (("Diffuse Nodule",), ("ILD",))
    back = agree(vindr, "VinDr-CXR", chest_det, "ChestX-Det", PACKAGED)
    assert shared_of(back) == {
        "Fracture": (("Rib fracture", "Clavicle fracture"), FindingUnion(("Fracture",))),
        "Nodule/Mass": (("Nodule/Mass",), FindingUnion(("Nodule", "Mass"))),
        "Effusion": (("Pleural effusion",), FindingUnion(("Effusion",))),
    }
    assert (back.unmatched, back.untrained) == (("ILD",), ("Diffuse Nodule",))


def test_a_model_that_lacks_a_part_is_not_asked():
    vindr = ("Nodule/Mass", "Pleural effusion", "Rib fracture")
    agreement = agree(("Mass", "Effusion"), "ChestX-Det", vindr, "VinDr-CXR", PACKAGED)
    assert list(shared_of(agreement)) == ["Effusion"]
    assert (agreement.unmatched, agreement.untrained) == (
        ("Mass",),
        ("Nodule/Mass", "Rib fracture"),
    )
    ribs = agree(
        ("Rib fracture", "Edema"), "VinDr-CXR", ("Fracture", "Edema"), "CheXpert", PACKAGED
    )
    assert list(shared_of(ribs)) == ["Edema"]


def test_data_that_lack_a_part_never_say_absent():
    agreement = agree(("Fracture",), "ChestX-Det", ("Rib fracture",), "VinDr-CXR", PACKAGED)
    assert agreement.data_unions == {
        "Fracture": FindingUnion(("Rib fracture",), ("Clavicle fracture",))
    }


def test_what_both_sets_tell_apart_is_not_merged():
    agreement = agree(("Nodule", "Mass"), "ChestX-Det", ("Mass", "Nodule"), "NIH", PACKAGED)
    assert list(shared_of(agreement)) == ["Nodule", "Mass"]
    lacking = agree(("Nodule", "Mass"), "ChestX-Det", ("Mass",), "NIH", PACKAGED)
    assert list(shared_of(lacking)) == ["Mass"]
    assert lacking.unmatched == ("Nodule",)


def test_one_data_set_keeps_its_own_names():
    names = ("Rib fracture", "Clavicle fracture")
    agreement = agree(names, "VinDr-CXR", names[::-1], "VinDr-CXR", PACKAGED)
    assert shared_of(agreement) == {name: ((name,), FindingUnion((name,))) for name in names}
    harmonised = agree(("Fracture",), "VinDr-CXR", names, "VinDr-CXR", PACKAGED)
    assert shared_of(harmonised) == {"Fracture": (("Fracture",), FindingUnion(names))}


def test_a_name_that_is_a_part_on_one_side_stands_for_the_whole():
    """The set counts "Bullous" apart, so its "Emphysema" alone would make false negatives."""
    made = LabelMap({"a": {"Emphysema": ("Emphysema",), "Bullous": ("Emphysema",)}}, {}, "made")
    agreement = agree(("Emphysema",), "b", ("Emphysema", "Bullous"), "a", made)
    assert agreement.data_unions == {"Emphysema": FindingUnion(("Emphysema", "Bullous"))}
    assert agreement.untrained == ()


def test_the_same_word_for_different_findings_is_not_the_same():
    agreement = agree(("Same", "Wet"), "left", ("Same", "Fluid"), "right", MADE)
    assert list(shared_of(agreement)) == ["Same", "Water"]  # only one of the sets is listed
    listed = LabelMap(MADE.sets | {"left": {"Same": ("Same",), "Wet": ("Water",)}}, {}, "made")
    agreement = agree(("Same", "Wet"), "left", ("Same", "Fluid"), "right", listed)
    assert list(shared_of(agreement)) == ["Water"]
    assert (agreement.unmatched, agreement.untrained) == (("Same",), ("Same",))


EMPHYSEMA = {"Emphysema": ("Emphysema",), "Bullous": ("Emphysema",)}
BOTH = FindingUnion(("Emphysema", "Bullous"))


@pytest.mark.parametrize("label_map", [PACKAGED, LabelMap({"a": EMPHYSEMA}, {}, "made")])
def test_of_one_set_a_harmonised_finding_is_what_it_was_made_of(label_map):
    """A film that is Bullous alone must not become a negative, with or without the map."""
    own = ("Emphysema", "Bullous")
    there = agree(
        ("Emphysema",), "a", own, "a", label_map, model_harmonised=EMPHYSEMA, data_harmonised={}
    )
    assert shared_of(there) == {"Emphysema": (("Emphysema",), BOTH)}
    back = agree(
        own, "a", ("Emphysema",), "a", label_map, model_harmonised={}, data_harmonised=EMPHYSEMA
    )
    assert shared_of(back) == {"Emphysema": (own, FindingUnion(("Emphysema",)))}
    part = agree(
        own[:1], "a", own[:1], "a", label_map, model_harmonised=EMPHYSEMA, data_harmonised={}
    )
    assert part.data_unions == {"Emphysema": FindingUnion(("Emphysema",), ("Bullous",))}
    with pytest.raises(DataError, match="no finding is shared"):
        agree(own[:1], "a", own[:1], "a", label_map, model_harmonised={}, data_harmonised=EMPHYSEMA)


@pytest.mark.parametrize("record", [None, {}, EMPHYSEMA])
def test_of_one_set_prepared_in_one_way_a_name_is_itself(record):
    own = ("Emphysema", "Wet")
    there = agree(own, "a", own, "a", PACKAGED, model_harmonised=record, data_harmonised=record)
    assert shared_of(there) == {name: ((name,), FindingUnion((name,))) for name in own}


def test_one_set_joined_in_two_ways_is_refused():
    other = {"Emphysema": ("Emphysema",), "Bullous": ("Pneumothorax",)}
    with pytest.raises(DataError, match=r"Emphysema was Bullous or Emphysema where .*same --label"):
        agree(
            ("Emphysema",),
            "a",
            ("Emphysema", "Pneumothorax"),
            "a",
            PACKAGED,
            model_harmonised=EMPHYSEMA,
            data_harmonised={name: list(shown) for name, shown in other.items()},
        )


def test_a_harmonised_finding_is_a_shared_one_for_other_sets():
    listed = LabelMap({"a": EMPHYSEMA, "b": {"Air": ("Emphysema",)}}, {}, "made")
    there = agree(
        ("Emphysema",), "a", ("Air",), "b", listed, model_harmonised=EMPHYSEMA, data_harmonised={}
    )
    assert there.data_unions == {"Emphysema": FindingUnion(("Air",))}
    with pytest.raises(DataError, match="no finding is shared"):
        agree(("Emphysema",), "a", ("Air",), "b", listed, model_harmonised={}, data_harmonised={})


def test_readers_names_that_are_shared_ones_are_whole():
    """CheXlocalize's reader says Lung Opacity, where its files, and the map, say Airspace."""
    unions = shared_unions(("Lung Opacity",), PACKAGED.names_of("CheXlocalize"), own=True)
    assert unions == {"Lung Opacity": FindingUnion(("Lung Opacity",))}


def test_a_name_that_shows_two_findings():
    agreement = agree(("Water", "Air"), "other", ("Both", "Fluid"), "right", MADE)
    assert agreement.data_unions == {
        "Water": FindingUnion(("Both", "Fluid")),
        "Air": FindingUnion(("Both",)),
    }


OPACITIES = ("CheXpert", "RSNA Pneumonia Detection Challenge", "VinDr-CXR")


@pytest.mark.parametrize(("trained", "judged"), list(itertools.permutations(OPACITIES, 2)))
def test_an_opacity_of_one_kind_is_not_one_of_another(trained, judged):
    """RSNA's and VinDr's absent Lung Opacity does not exclude CheXpert's."""
    own = ("Lung Opacity", "Pneumonia")
    agreement = agree(own, trained, own, judged, PACKAGED)
    assert list(shared_of(agreement)) == ["Pneumonia"]
    assert (agreement.unmatched, agreement.untrained) == (("Lung Opacity",), ("Lung Opacity",))
    itself = agree(own, judged, own, judged, PACKAGED)
    assert list(shared_of(itself)) == list(own)


def test_chexlocalize_has_the_opacity_of_chexpert():
    agreement = agree(("Lung Opacity",), "CheXpert", ("Lung Opacity",), "CheXlocalize", PACKAGED)
    assert list(shared_of(agreement)) == ["Lung Opacity"]


def test_an_unlisted_name_outside_the_vocabulary_is_matched_by_name():
    mine, official = ("Rib fracture",), ("Rib fracture", "Clavicle fracture")
    agreement = agree(mine, "our hospital", official, "VinDr-CXR", PACKAGED)
    assert agreement.data_unions == {"Rib fracture": FindingUnion(mine)}
    assert agreement.untrained == ("Clavicle fracture",)


def test_nothing_in_common_names_both_vocabularies():
    with pytest.raises(DataError, match="no finding is shared") as error:
        agree(("Hernia", "Edema"), "NIH ChestX-ray14", ("ILD", "COPD"), "VinDr-CXR", PACKAGED)
    for word in ("Hernia, Edema", "ILD, COPD", "NIH ChestX-ray14", "VinDr-CXR", "--label-map"):
        assert word in str(error.value)


OWN = ("Rib", "Clavicle", "Wet", "Lone")


def made_source(seed, folder: Path, count=7):
    """Labels and boxes at random, also boxes on findings that are absent or not assessed."""
    import cv2

    rng = np.random.default_rng(seed)
    radiographs = []
    for number in range(count):
        path = folder / f"film{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (24, 40), dtype=np.uint8))
        drawn = rng.choice([None, False, True], len(OWN))
        labels = {name: bool(one) for name, one in zip(OWN, drawn, strict=True) if one is not None}
        regions = []
        for name in OWN:
            for _ in range(rng.integers(0, 3)):
                x, y = map(float, rng.integers(0, 20, 2))
                regions.append(Region(name, Box(x, y / 2, x + 9, y / 2 + 7), "reader"))
        split = ("train", "val", "test")[number % 3]
        radiographs.append(
            Radiograph(f"film{number}", f"p{number}", path, labels, tuple(regions), None, split)
        )
    return SourceSet("left", OWN, tuple(radiographs), "generated", "none", "none", ("a note",))


UNIONS = {"Water": ("Wet",), "Broken": ("Rib", "Clavicle")}


def test_prepared_data_are_joined_as_a_loop_joins_them(tmp_path):
    data = prepare(made_source(4, tmp_path, count=40), tmp_path / "data", size=16)
    joined = harmonise_data(data, {name: FindingUnion(parts) for name, parts in UNIONS.items()})
    assert joined.findings == ("Water", "Broken")
    assert (joined.fingerprint, joined.image_ids) == (data.fingerprint, data.image_ids)
    seen = set()
    for index, (column, name) in itertools.product(range(40), enumerate(UNIONS)):
        own = [data.labels[index, data.findings.index(part)] for part in UNIONS[name]]
        label = naive_label(own)
        np.testing.assert_equal(joined.labels[index, column], label)
        if label != 1:
            continue
        expected = np.zeros((16, 16), dtype=bool)
        there = [part for part, value in zip(UNIONS[name], own, strict=True) if value == 1]
        if all(data.regions(index, part) for part in there):
            for part in there:
                expected |= data.coverage(index, part, 16) > 0
        got = joined.coverage(index, name, 16)
        np.testing.assert_array_equal(got > 0, expected)
        assert joined.has_region()[index, column] == expected.any()
        boxed = [bool(data.regions(index, part)) for part in there]
        seen.add((name, len(there), tuple(sorted(boxed))))
    assert {("Broken", 1, (True,)), ("Broken", 2, (False, True)), ("Broken", 2, (True, True))} <= (
        seen
    )


def test_overlapping_regions_of_parts_count_once(tmp_path):
    regions = tuple(
        Region(name, Box(x, 0.0, x + 20.0, 24.0)) for name, x in (("Rib", 0.0), ("Clavicle", 10.0))
    )
    source = made_source(0, tmp_path, count=3)
    labels = {"Rib": True, "Clavicle": True}
    one = Radiograph("film0", "p0", tmp_path / "film0.png", labels, regions, None, "train")
    data = prepare(
        SourceSet("left", OWN, (one, *source.radiographs[1:]), "s", "l", "c"),
        tmp_path / "data",
        size=16,
    )
    joined = harmonise_data(data, {"Broken": FindingUnion(("Rib", "Clavicle"))})
    assert joined.coverage(0, "Broken", 16).mean() == pytest.approx(30 / 40)
    assert len(joined.regions(0, "Broken")) == 2


def test_a_region_on_an_absent_part_is_not_the_unions(tmp_path):
    source = made_source(0, tmp_path, count=3)
    regions = (
        Region("Rib", Box(0.0, 0.0, 9.0, 9.0)),
        Region("Clavicle", Box(20.0, 9.0, 30.0, 20.0)),
    )
    labels = {"Rib": False, "Clavicle": True}
    one = Radiograph("film0", "p0", tmp_path / "film0.png", labels, regions, None, "train")
    source = SourceSet("left", OWN, (one, *source.radiographs[1:]), "s", "l", "c")
    data = prepare(source, tmp_path / "data", size=16)
    joined = harmonise_data(data, {"Broken": FindingUnion(("Rib", "Clavicle"))})
    assert [region.shape for region in joined.regions(0, "Broken")] == [Box(20.0, 9.0, 30.0, 20.0)]
    first = harmonise_source(source, MADE).radiographs[0]
    assert [region.shape for region in first.regions] == [Box(20.0, 9.0, 30.0, 20.0)]


def test_a_teachers_region_does_not_make_the_experts_of_a_union_whole(tmp_path):
    rib, clavicle = Box(0.0, 0.0, 9.0, 9.0), Box(20.0, 9.0, 30.0, 20.0)
    regions = (
        Region("Rib", rib),
        Region("Rib", clavicle, kind="pseudo"),
        Region("Clavicle", clavicle, kind="pseudo"),
    )
    source = made_source(0, tmp_path, count=3)
    labels = {"Rib": True, "Clavicle": True}
    one = Radiograph("film0", "p0", tmp_path / "film0.png", labels, regions, None, "train")
    source = SourceSet("left", OWN, (one, *source.radiographs[1:]), "s", "l", "c")
    data = prepare(source, tmp_path / "data", size=16)
    joined = harmonise_data(data, {"Broken": FindingUnion(("Rib", "Clavicle"))})
    assert joined.regions(0, "Broken") == ()
    assert len(joined.with_regions("pseudo").regions(0, "Broken")) == 2


LUMPS = LabelMap(
    {"NIH ChestX-ray14": {"Nodule": ("Lump",), "Mass": ("Lump",), "Edema": ("Edema",)}}, {}, "made"
)


@pytest.mark.parametrize(
    ("labels", "boxed", "kept"),
    [
        ({"Nodule": True, "Mass": True}, ("Nodule",), []),
        ({"Nodule": True, "Mass": True}, ("Mass",), []),
        ({"Nodule": True, "Mass": True}, ("Nodule", "Mass"), ["Nodule", "Mass"]),
        ({"Nodule": True, "Mass": False}, ("Nodule",), ["Nodule"]),
        ({"Nodule": True}, ("Nodule", "Mass"), ["Nodule"]),
        ({"Mass": True}, ("Nodule",), []),
        ({"Nodule": False}, ("Nodule", "Mass"), ["Nodule", "Mass"]),
    ],
)
def test_a_present_part_without_a_box_leaves_the_union_without_a_region(
    tmp_path, labels, boxed, kept
):
    made = made_source(0, tmp_path, count=3)
    places = {"Nodule": Box(0.0, 0.0, 9.0, 9.0), "Mass": Box(20.0, 9.0, 30.0, 20.0)}
    edema = Box(1.0, 1.0, 5.0, 5.0)
    regions = (Region("Edema", edema), *(Region(name, places[name]) for name in boxed))
    labels = {**labels, "Edema": True}
    one = Radiograph("film0", "p0", tmp_path / "film0.png", labels, regions, None, "train")
    others = [
        Radiograph(film.image_id, film.patient_id, film.path, {}, (), None, film.split)
        for film in made.radiographs[1:]
    ]
    name = "NIH ChestX-ray14"
    source = SourceSet(name, ("Nodule", "Mass", "Edema"), (one, *others), "s", "l", "c")
    before = harmonise_source(source, LUMPS)
    unions = shared_unions(source.findings, LUMPS.names_of(name))
    after = harmonise_data(prepare(source, tmp_path / "data", size=16), unions)
    shapes = [places[part] for part in kept]
    lumps = [one.shape for one in before.radiographs[0].regions if one.finding == "Lump"]
    assert lumps == shapes
    assert [one.shape for one in after.regions(0, "Lump")] == shapes
    assert [one.shape for one in after.regions(0, "Edema")] == [edema]
    assert after.has_region()[0].tolist() == [bool(kept), True]


def test_preparing_harmonised_is_harmonising_prepared(tmp_path):
    source = made_source(5, tmp_path)
    joined = harmonise_source(source, MADE)
    assert joined.findings == ("Broken", "Water", "Lone")
    before = prepare(joined, tmp_path / "before", size=16)
    unions = shared_unions(OWN, MADE.names_of("left"))
    after = harmonise_data(prepare(source, tmp_path / "after", size=16), unions)
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.has_region(), after.has_region())
    for index, name in itertools.product(range(7), joined.findings):
        one, other = before.coverage(index, name, 16), after.coverage(index, name, 16)
        np.testing.assert_array_equal(one, other)
    again = harmonise_source(joined, MADE)
    assert again.radiographs == joined.radiographs
    assert (after.harmonised, before.harmonised) == ({}, MADE.names_of("left"))
    assert joined.notes[0] == "a note"
    assert "Broken = Rib or Clavicle; Water = Wet" in joined.notes[1]


def test_a_set_that_lacks_a_part_is_never_absent_once_prepared(tmp_path):
    whole = made_source(1, tmp_path)
    ribs = SourceSet(
        "left",
        ("Rib",),
        tuple(
            Radiograph(one.image_id, one.patient_id, one.path, {"Rib": number % 2 == 0})
            for number, one in enumerate(whole.radiographs)
        ),
        "s",
        "l",
        "c",
    )
    joined = harmonise_source(ribs, MADE)
    assert {tuple(one.labels.items()) for one in joined.radiographs} == {(("Broken", True),), ()}
    assert "never absent: Clavicle is not assessed" in joined.notes[0]


def test_a_finding_that_the_data_do_not_have_is_an_error(tmp_path):
    data = prepare(made_source(2, tmp_path), tmp_path / "data", size=16)
    with pytest.raises(ConfigError, match="'Cat'"):
        harmonise_data(data, {"Cat": FindingUnion(("Cat",))})


@given(
    st.sets(st.sampled_from(["Nodule", "Mass", "Nodule/Mass", "Effusion", "Other lesion"])),
    st.sets(st.sampled_from(["Nodule", "Mass", "Nodule/Mass", "Pleural effusion", "ILD"])),
)
def test_every_finding_is_shared_or_listed_and_names_are_distinct(model, data):
    try:
        agreement = agree(sorted(model), "ChestX-Det", sorted(data), "VinDr-CXR", PACKAGED)
    except DataError:
        return
    used = {part for one in agreement.shared for part in one.model}
    assert used | set(agreement.unmatched) == model
    assert not used & set(agreement.unmatched)
    used = {part for one in agreement.shared for part in one.data.parts}
    assert used | set(agreement.untrained) == data
    assert not used & set(agreement.untrained)
    names = [one.name for one in agreement.shared]
    assert len(set(names)) == len(names)
