import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from dwarf_cxr.export.dicom import Kind, write_dicom
from tests.export.made import (
    BOX,
    FINDINGS,
    SECOND_BOXES,
    SOURCES,
    absent,
    predicted_for,
    write_source,
)


def written(path, findings=FINDINGS):
    files = write_dicom(predicted_for(path, findings), path.parent, [Kind.REPORT])
    return hd.sr.srread(files["report"])


def regions(report):
    """Boxes by finding, from the closed lines."""
    found = {}
    for group in report.content.get_planar_roi_measurement_groups():
        line = group.roi.value
        assert line.shape == (5, 2)
        np.testing.assert_array_equal(line[0], line[-1])
        box = (*line.min(axis=0).tolist(), *line.max(axis=0).tolist())
        found.setdefault(group.finding_type.meaning, set()).add(box)
    return found


def scores(report):
    """Score, threshold and whether present, by finding."""
    found = {}
    for group in report.content.get_image_measurement_groups():
        numbers = {m.name.value: m.value for m in group.get_measurements()}
        called = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
        # highdicom takes the category for an evaluation too
        assert set(called) == {"Presence of property", "Finding category"}
        found[group.finding_type.meaning] = (
            numbers.get("111012"),
            numbers.get("122411"),
            called["Presence of property"],
        )
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_regions_come_back_at_exactly_their_places(tmp_path, name):
    path = write_source(tmp_path / "film.dcm", SOURCES[name])
    assert regions(written(path)) == {
        "Pleural effusion": {BOX},
        "Not in / any table Ω": set(SECOND_BOXES),
    }


def test_every_finding_has_its_score(film):
    assert scores(written(film)) == {
        "Pleural effusion": (pytest.approx(83, abs=1e-12), 50, "Present"),
        "Nodule": (20, 50, "Absent"),
        "Not in / any table Ω": (75, 50, "Present"),
        "Mass": (40, None, "Presence Undetermined"),
    }


def test_nothing_present_has_scores_only(film):
    report = written(film, absent())
    assert regions(report) == {}
    assert {said for _, _, said in scores(report).values()} == {"Absent"}


def test_regions_say_how_high_the_map_is(film):
    group = written(film).content.get_planar_roi_measurement_groups()[0]
    (measurement,) = group.get_measurements()
    assert measurement.value == pytest.approx(90, abs=1e-5)
    assert measurement.unit == codes.UCUM.Percent


def test_the_film_is_evidence(film):
    report, source = written(film), pydicom.dcmread(film)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == source.StudyInstanceUID
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_who_says_so(film):
    report = written(film)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PreliminaryFlag == "PRELIMINARY"
    texts = {
        item.name.meaning: item.value
        for item in hd.sr.utils.find_content_items(report, value_type="TEXT", recursive=True)
    }
    assert texts["Algorithm Name"] == "dwarf-cxr dwarf"
    assert "ab" * 32 in texts["Algorithm Parameters"]
    assert "Research only" in texts["Algorithm Parameters"]
    assert texts["Device Observer Manufacturer"] == "dwarf-cxr"


def test_a_region_is_told_apart_by_the_same_name_whenever_the_film_is_asked(film):
    def names(report):
        groups = [
            *report.content.get_planar_roi_measurement_groups(),
            *report.content.get_image_measurement_groups(),
        ]
        return [group.tracking_uid for group in groups]

    first, second = names(written(film)), names(written(film))
    assert first == second
    assert len(set(first)) == 3 + len(FINDINGS)
