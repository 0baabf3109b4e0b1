"""Tables of map scores that a test fills in by hand."""

from collections.abc import Mapping

from dwarf_cxr.evaluation.maps import MapScores
from dwarf_cxr.evaluation.pair_scores import PairScores, Table, Tables


def empty_map_tables(images: int, findings: int) -> dict[str, Table]:
    """NaN for every map column."""
    return dict(Tables(PairScores(images, findings).makers()))


def set_map_scores(
    tables: Mapping[str, Table], image: int, finding: int, scores: MapScores
) -> None:
    """Put the scores of one map into the tables."""
    for column, value in scores._asdict().items():
        tables[column][image, finding] = value
