"""Data and three runs on it, made once."""

from pathlib import Path

import pytest

from dwarf_cxr.data.store import PreparedData
from tests.reporting.made import write_data, write_run


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return write_data(tmp_path_factory.mktemp("made") / "data")


@pytest.fixture(scope="session")
def made_runs(made_data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one method and a dwarf-prior."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / "first", made_data),
        write_run(folder / "second", made_data, seed=1),
        write_run(folder / "prior", made_data, seed=2, method="dwarf-prior"),
    ]
