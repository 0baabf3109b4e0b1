"""Scores of maps for many images in little memory: few (image, finding) pairs have a region."""

from array import array
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.evaluation.maps import MapScores

Table = Float64[np.ndarray, "image finding"]


class Tables(Mapping[str, Table]):
    """(image, finding) tables that are made when asked for, and not kept.

    A maker gets the images that are asked for.
    """

    def __init__(self, makers: Mapping[str, Callable[[slice], Table]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, column: str) -> Table:
        return self._makers[column](slice(None))

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def of(self, images: slice) -> dict[str, Table]:
        """All tables of some of the images."""
        return {column: make(images) for column, make in self._makers.items()}


class PairScores:
    """The scores of those pairs that were scored; of all others they are NaN."""

    def __init__(self, images: int, findings: int) -> None:
        self.images, self.findings = images, findings
        self._places, self._values = array("q"), array("d")

    def add(self, image: int, finding: int, scores: MapScores) -> None:
        """Put in the scores of a pair."""
        self._places.append(image * self.findings + finding)
        self._values.extend(scores)

    def take(self, other: "PairScores", images: np.ndarray) -> None:
        """Put in the scores of other images, which are `images` here."""
        places = np.array(other._places, dtype=np.int64)
        moved = images[places // self.findings] * self.findings + places % self.findings
        self._places.extend(moved.tolist())
        self._values.extend(other._values)

    def table(self, column: str, images: slice = slice(None)) -> Table:
        """A field of `MapScores` for all pairs of `images`."""
        begin, end, _ = images.indices(self.images)
        places = np.array(self._places, dtype=np.int64) - begin * self.findings
        values = np.array(self._values[MapScores._fields.index(column) :: len(MapScores._fields)])
        table = np.full((end - begin) * self.findings, np.nan)
        inside = (places >= 0) & (places < len(table))
        table[places[inside]] = values[inside]
        return table.reshape(-1, self.findings)

    def makers(self) -> dict[str, Callable[[slice], Table]]:
        """For `Tables`: every field, and `fp_area`, which pairs without a region have."""
        made: dict[str, Callable[[slice], Table]] = {
            column: self._maker(column) for column in MapScores._fields
        }
        return {**made, "fp_area": self._unscored}

    def _maker(self, column: str) -> Callable[[slice], Table]:
        return lambda images: self.table(column, images)

    def _unscored(self, images: slice) -> Table:
        return np.full((len(range(*images.indices(self.images))), self.findings), np.nan)
