from pathlib import Path

import pytest

from tests.export.made import SOURCES, write_source


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A DX film for presentation."""
    return write_source(tmp_path / "in" / "film.dcm", SOURCES["DX"])
