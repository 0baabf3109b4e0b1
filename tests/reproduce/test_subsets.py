import pytest

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import (
    CHESTX_DET_4,
    CHESTX_DET_7,
    CHESTX_DET_13,
    NIH_BOXED_8,
)
from dwarf_cxr.reproduce.subsets import (
    annotated_cases,
    findings_with_regions,
    subset_findings,
)
from tests.tiny import FINDINGS, write_data


def test_the_papers_own_where_all_thirteen_are_there():
    assert subset_findings(CHESTX_DET_13, 4) == CHESTX_DET_4
    assert subset_findings(CHESTX_DET_13, 7) == tuple(
        name for name in CHESTX_DET_13 if name in CHESTX_DET_7
    )
    assert subset_findings(CHESTX_DET_13, 13) == CHESTX_DET_13
    more = ("Edema", *reversed(CHESTX_DET_13))
    assert subset_findings(more, 13) == more[1:]


def test_half_and_all_elsewhere():
    assert subset_findings(NIH_BOXED_8, 4) == ("Atelectasis", "Cardiomegaly", "Effusion", "Mass")
    assert subset_findings(NIH_BOXED_8, 7) == NIH_BOXED_8
    assert subset_findings(NIH_BOXED_8, 13) == NIH_BOXED_8
    assert subset_findings(FINDINGS, 4) == ("Effusion",)
    assert subset_findings(("Odd",), 4) == ("Odd",)


def test_half_is_taken_in_the_order_of_the_papers_versions():
    available = ("Calcification", "Mass", "Nodule", "Effusion")
    assert subset_findings(available, 4) == ("Mass", "Effusion")
    assert subset_findings(("Calcification", "Odd", "Mass"), 4) == ("Mass",)
    assert subset_findings(("Odd", "Calcification"), 4) == ("Calcification",)


def test_other_spellings_are_known():
    names = ("Odd", "Nodule/Mass", "Pleural effusion", "Atelectasis")
    assert subset_findings(names, 4) == ("Pleural effusion", "Atelectasis")


def test_only_findings_with_training_regions(tmp_path):
    data = write_data(tmp_path / "data")
    assert findings_with_regions(data) == FINDINGS
    labels = data.labels.copy()
    labels[:, 0] = 0  # a region alone makes no case
    unlabelled = PreparedData(**{**vars(data), "labels": labels})
    assert findings_with_regions(unlabelled) == FINDINGS[1:]
    splits = ["val"] * len(data.splits)
    none = PreparedData(**{**vars(data), "splits": tuple(splits)})
    with pytest.raises(DataError, match="no training image has a region"):
        findings_with_regions(none)
    counts = [
        sum(
            bool(data.regions(index, name)) and data.labels[index, column] == 1
            for index in data.indices("train")
        )
        for column, name in enumerate(FINDINGS)
    ]
    assert annotated_cases(data, FINDINGS) == max(counts)
    assert annotated_cases(data, ("Nodule",)) == counts[2]
