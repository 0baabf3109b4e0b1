"""The package's label map is complete and sound; a user's own is laid over it."""

import ast
import re
from pathlib import Path

import pytest

from dwarf_cxr.data import chest_det, chexlocalize, chexpert_boxes, covid, nih, rsna, vindr
from dwarf_cxr.data.harmonise import shared_unions
from dwarf_cxr.data.label_map import load_label_map
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import CHESTX_DET_13, NIH_14, VOCABULARY

PACKAGED = load_label_map()
DOCS = Path(__file__).resolve().parents[2] / "docs" / "label-maps.md"

VINDR_CHALLENGE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
)  # fmt: skip
VINDR_PHYSIONET = (
    "Clavicle fracture", "Edema", "Emphysema", "Enlarged PA", "Lung cavity", "Lung cyst",
    "Mediastinal shift", "Rib fracture",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases",
)  # fmt: skip
CHEXLOCALIZE = (
    "Airspace Opacity", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema",
    "Enlarged Cardiomediastinum", "Lung Lesion", "Pleural Effusion", "Pneumothorax",
    "Support Devices",
)  # fmt: skip
CHEXPERT = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
HAM_BOXES = (
    "Pleural_Effusion", "Edema", "Atelectasis", "Cardiomegaly", "Consolidation", "Fracture",
    "Pneumonia", "Enlarged_Cardiomediastinum", "Pneumothorax",
)  # fmt: skip
OFFICIAL = {
    "NIH ChestX-ray14": tuple(name.replace("l T", "l_T") for name in NIH_14),
    "ChestX-Det": CHESTX_DET_13,
    "VinDr-CXR": VINDR_CHALLENGE + VINDR_PHYSIONET,
    "CheXlocalize": CHEXLOCALIZE,
    "CheXpert": CHEXPERT,
    "CheXpert with HAM's boxes": HAM_BOXES,
}


@pytest.mark.parametrize("data_set", OFFICIAL)
def test_every_official_name_is_listed_and_no_other(data_set):
    assert set(PACKAGED.names_of(data_set)) == set(OFFICIAL[data_set])


def test_every_target_is_in_the_vocabulary_or_merged_or_the_name_itself():
    for data_set, names in PACKAGED.sets.items():
        for name, shown in names.items():
            for one in shown:
                own = name if name not in VOCABULARY else f"{name} ({data_set})"
                assert one in VOCABULARY or one in PACKAGED.merged or shown == (own,)
    for parts in PACKAGED.merged.values():
        assert set(parts) <= set(VOCABULARY)
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert not set(PACKAGED.merged) & set(VOCABULARY)


READ = {
    "NIH ChestX-ray14": nih.NAMES.values(),
    "ChestX-Det": chest_det.NAMES.values(),
    "VinDr-CXR": vindr.NAMES.values(),
    "RSNA Pneumonia Detection Challenge": [rsna.FINDING],
    "CheXlocalize": chexlocalize.TASKS,
    "CheXpert with HAM's boxes": chexpert_boxes.NAMES.values(),
    "COVID-19 image data collection": covid.FINDINGS,
}


@pytest.mark.parametrize("data_set", READ)
def test_what_a_reader_calls_a_finding_is_listed_or_in_the_vocabulary(data_set):
    names = PACKAGED.names_of(data_set)
    assert {one for one in READ[data_set] if one not in names} <= set(VOCABULARY)
    unions = shared_unions(tuple(dict.fromkeys(READ[data_set])), names)
    assert not [name for name, union in unions.items() if union.missing]


def test_the_two_fractures_that_the_reader_of_vindr_finds_are_one():
    unions = shared_unions(tuple(vindr.NAMES.values()), PACKAGED.names_of("VinDr-CXR"))
    assert set(unions["Fracture"].parts) == {"Clavicle fracture", "Rib fracture"}


def test_every_reader_names_its_set_as_the_map_does():
    """A reader's `SourceSet(name="...")`; sets named by the user or generated have no entry."""
    written = set()
    for path in Path(vindr.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SourceSet":
                written |= {
                    keyword.value.value
                    for keyword in node.keywords
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
                }
    assert len(written) >= 6
    assert written <= set(PACKAGED.sets)


@pytest.mark.parametrize(
    ("data_set", "name", "shown"),
    [
        ("VinDr-CXR", "Nodule/Mass", ("Nodule/Mass",)),
        ("VinDr-CXR", "Clavicle fracture", ("Fracture",)),
        ("VinDr-CXR", "Rib fracture", ("Fracture",)),
        ("VinDr-CXR", "Pulmonary fibrosis", ("Fibrosis",)),
        ("VinDr-CXR", "Pleural effusion", ("Effusion",)),
        ("VinDr-CXR", "Lung tumor", ("Lung tumor",)),
        ("CheXlocalize", "Airspace Opacity", ("Lung Opacity",)),
        ("CheXpert", "Lung Opacity", ("Lung Opacity",)),
        ("VinDr-CXR", "Lung Opacity", ("Lung Opacity (VinDr-CXR)",)),
        ("COVID-19 image data collection", "COVID-19", ("COVID-19",)),
        ("COVID-19 image data collection", "Pneumonia", ("Pneumonia",)),
        ("CheXpert", "Lung Lesion", ("Lung Lesion",)),
        ("CheXpert with HAM's boxes", "Pleural_Effusion", ("Effusion",)),
    ],
)
def test_what_the_specification_says(data_set, name, shown):
    assert PACKAGED.names_of(data_set)[name] == shown
    assert PACKAGED.merged["Nodule/Mass"] == ("Nodule", "Mass")


def test_the_documented_tables_are_the_map():
    documented: dict[str, dict[str, tuple[str, ...]]] = {}
    data_set = ""
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"### (.+)", line):
            data_set = heading[1]
        elif data_set and (row := re.fullmatch(r"\| (?!name )(.+?) \| (.*?) \|(?:.*\|)?", line)):
            if set(row[1]) <= {"-"}:
                continue
            shown = (row[1],) if row[2] == "—" else tuple(row[2].split(" and "))
            documented.setdefault(data_set, {})[row[1]] = shown
    assert documented == {name: dict(names) for name, names in PACKAGED.sets.items()}
    assert "**Nodule/Mass** is Nodule or Mass" in DOCS.read_text(encoding="utf-8")


def write(tmp_path, text):
    path = tmp_path / "names.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_takes_the_place_of_the_sets_it_names(tmp_path):
    mine = load_label_map(
        write(
            tmp_path,
            "format: dwarf-label-map-1\n"
            "merged:\n  Any opacity: [Consolidation, Infiltration]\n"
            "sets:\n"
            "  ours: {Water: Effusion, Grey: Any opacity, Both: [Mass, Nodule], Odd: , Edema: }\n"
            "  CheXpert:\n",
        )
    )
    assert mine.names_of("ours") == {
        "Water": ("Effusion",),
        "Grey": ("Any opacity",),
        "Both": ("Mass", "Nodule"),
        "Odd": ("Odd",),
        "Edema": ("Edema (ours)",),
    }
    assert mine.names_of("CheXpert") == {}
    assert mine.names_of("VinDr-CXR") == PACKAGED.names_of("VinDr-CXR")
    assert set(mine.merged) == {"Any opacity", "Nodule/Mass"}
    assert mine.sha256 != PACKAGED.sha256
    assert mine.names_of("never heard of") == {}


def test_the_word_shared_is_the_packaged_map():
    assert load_label_map(Path("shared")) == PACKAGED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sets: {}", "begin it with 'format: dwarf-label-map-1'"),
        ("- a", "begin it with"),
        ("", "begin it with"),
        ("format: [", "not valid YAML"),
        ("format: dwarf-label-map-1\nsets:\n  a: {X: Mass, X: Nodule}", "'X' stands twice"),
        ("format: dwarf-label-map-1\nset: {}", "unknown key 'set'"),
        ("format: dwarf-label-map-1\nsets:\n  a: {X: Mas}", "'Mas' is not in the shared voc"),
        ("format: dwarf-label-map-1\nsets:\n  a: {X: 3}", "sets.a.X: give a shared finding"),
        ("format: dwarf-label-map-1\nsets:\n  a: {X: []}", "sets.a.X: give a shared finding"),
        ("format: dwarf-label-map-1\nsets:\n  a: {no: Mass}", "with names as text"),
        ("format: dwarf-label-map-1\nsets: [a]", "sets: expected lines"),
        ("format: dwarf-label-map-1\nmerged: {M: [Mass]}", "merged.M: list the two or more"),
        ("format: dwarf-label-map-1\nmerged: {M: [Mass, Mass]}", "merged.M: list the two"),
        ("format: dwarf-label-map-1\nmerged: {M: [Mass, Cat]}", "'Cat' is not in the shared"),
        ("format: dwarf-label-map-1\nmerged: {Edema: [Mass, Nodule]}", "choose another name"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        load_label_map(path)
    assert str(path) in str(error.value)


def test_all_faults_come_at_once(tmp_path):
    path = write(tmp_path, "format: dwarf-label-map-1\nsets:\n  a: {X: Mas, Y: 3}\nz: 1")
    with pytest.raises(ConfigError) as error:
        load_label_map(path)
    assert len(str(error.value).splitlines()) == 3


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_label_map(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_label_map(tmp_path / "odd.yaml")
