import highdicom as hd
import numpy as np
import pytest

from dwarf_cxr.export.dicom import Kind, write_dicom
from dwarf_cxr.export.dicom_seg import segmentation, segmented_findings
from dwarf_cxr.export.dicom_source import read_header
from tests.export.made import (
    FINDINGS,
    HEIGHT,
    PLACE,
    SECOND_PLACES,
    SOURCES,
    WIDTH,
    absent,
    map_with,
    predicted_for,
    said_of,
    write_source,
)


def written(path, kind, findings=FINDINGS):
    files = write_dicom(predicted_for(path, findings), path.parent, [kind])
    return hd.seg.segread(files[str(kind)])


def frames_by_source(segments, header):
    """(segment, height, width): what a viewer lays over the film's pixels."""
    return segments.get_pixels_by_source_instance(
        [header.SOPInstanceUID],
        segment_numbers=range(1, segments.number_of_segments + 1),
        rescale_fractional=False,
    )[0].transpose(2, 0, 1)


@pytest.mark.parametrize("name", SOURCES)
def test_masks_come_back_at_exactly_their_pixels(tmp_path, name):
    path = write_source(tmp_path / "film.dcm", SOURCES[name])
    segments = written(path, Kind.SEGMENTATION)
    frames = frames_by_source(segments, hd.imread(path))
    expected = np.zeros((2, HEIGHT, WIDTH), dtype=int)
    expected[0][PLACE] = 1
    for place in SECOND_PLACES:
        expected[1][place] = 1
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("name", SOURCES)
def test_maps_come_back_as_probabilities(tmp_path, name):
    path = write_source(tmp_path / "film.dcm", SOURCES[name])
    segments = written(path, Kind.FRACTIONAL)
    frames = frames_by_source(segments, hd.imread(path))
    assert segments.SegmentationFractionalType == "PROBABILITY"
    assert segments.MaximumFractionalValue == 255
    maps = [said.grid for said in FINDINGS]
    np.testing.assert_allclose(frames / 255, maps, rtol=0, atol=0.5 / 255 + 1e-7)


def test_a_map_on_the_models_grid_covers_the_film(film):
    grid = np.zeros((2, 3), dtype=np.float32)
    grid[0, 2] = 1
    frames = frames_by_source(
        written(film, Kind.SEGMENTATION, [said_of("Mass", grid, 0.9)]), hd.imread(film)
    )
    # bilinear, cell centres at 1/6, 3/6 and 5/6 of the width: half of the way is at 2/3; the
    # threshold 0.6 lies a little further to the right and further up
    y, x = np.argwhere(frames[0]).T
    assert (y.min(), x.max()) == (0, WIDTH - 1)
    assert y.max() == np.floor(HEIGHT * (0.25 + 0.4 * 0.5) - 0.5)
    assert x.min() == np.ceil(WIDTH * (0.5 + 0.6 / 3) - 0.5)


def test_segments_say_what_they_are(film):
    segments = written(film, Kind.SEGMENTATION)
    assert [s.segment_label for s in segments.SegmentSequence] == [
        "Effusion",
        "Not in / any table Ω",
    ]
    first, second = segments.SegmentSequence
    assert first.segmented_property_type == hd.sr.CodedConcept(
        "60046008", "SCT", "Pleural effusion"
    )
    assert second.segmented_property_type.scheme_designator == "99DWARF"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "dwarf-cxr dwarf"
    assert "ab" * 32 in algorithm.AlgorithmParameters
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert "score 0.8300, called present (present from 0.5000)" in first.SegmentDescription
    assert segments.SegmentsOverlap == "NO"
    assert segments.ContentQualification == "RESEARCH"
    assert "Research only" in segments.SeriesDescription


def test_fractional_segments_say_what_was_called_absent(film):
    segments = written(film, Kind.FRACTIONAL).SegmentSequence
    said = [segment.SegmentDescription for segment in segments]
    assert ["called present" in words for words in said] == [True, False, True, False]
    assert "called absent" in said[1]
    assert said[3] == "score 0.4000, not judged"


def test_overlapping_masks_are_kept_apart(film):
    twice = [
        said_of(name, map_with([PLACE], seed=seed), 0.9)
        for seed, name in enumerate(("Effusion", "Mass"))
    ]
    segments = written(film, Kind.SEGMENTATION, twice)
    frames = frames_by_source(segments, hd.imread(film))
    assert frames.sum(axis=(1, 2)).tolist() == [12 * 18, 12 * 18]
    assert segments.SegmentsOverlap == "YES"


def test_a_finding_whose_map_nowhere_reaches_its_threshold_keeps_an_empty_segment(film):
    findings = [said_of("Effusion", map_with([PLACE]), 0.9), said_of("Mass", map_with([]), 0.9)]
    frames = frames_by_source(written(film, Kind.SEGMENTATION, findings), hd.imread(film))
    assert frames.sum(axis=(1, 2)).tolist() == [12 * 18, 0]
    alone = frames_by_source(written(film, Kind.SEGMENTATION, findings[1:]), hd.imread(film))
    assert alone.shape == (1, HEIGHT, WIDTH)
    assert alone.sum() == 0


@pytest.mark.parametrize(
    ("spacing", "removed", "expected"),
    [
        ((0.15, 0.25), [], [0.15, 0.25]),
        ((0.15, 0.25), ["PixelSpacing"], None),
        (None, [], None),
    ],
)
def test_the_films_spacing_is_kept_where_it_is_known(tmp_path, spacing, removed, expected):
    path = write_source(
        tmp_path / "a.dcm", {"modality": "CR", "spacing": spacing, "removed": removed}
    )
    shared = written(path, Kind.SEGMENTATION).SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence")
    assert (measures and [float(v) for v in measures[0].PixelSpacing]) == expected


def test_nothing_present_has_no_masks(film):
    predicted = predicted_for(film, absent())
    assert segmented_findings(predicted, "BINARY") == ()
    assert len(segmented_findings(predicted, "FRACTIONAL")) == len(FINDINGS)
    with pytest.raises(ValueError, match="no finding is called present"):
        segmentation(read_header(predicted.film), predicted, "BINARY")
