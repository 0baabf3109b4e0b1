"""Tables of cases as a test says them."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from dwarf_cxr.evaluation.cases import COLUMNS


def write_rows(path: Path, rows: Iterable[tuple[str, str, Mapping[str, str]]]) -> Path:
    """Rows are (film, finding, other columns)."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        for film, finding, values in rows:
            base = {"image_id": film, "patient_id": f"p{film}", "finding": finding}
            writer.writerow(base | {"label": "1", "score": ".5", "n_regions": "1", **values})
    return path
