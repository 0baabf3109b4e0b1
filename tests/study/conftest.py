"""Data, models and a study of two of them, made once."""

import shutil
from pathlib import Path

import pytest

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.study.create import StudySettings, create_study
from dwarf_cxr.study.folder import Study
from tests.study.made import FINDINGS, write_data, write_models


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return write_data(tmp_path_factory.mktemp("study") / "data")


@pytest.fixture(scope="session")
def made_models(made_data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_models(tmp_path_factory.mktemp("models"), made_data)


@pytest.fixture(scope="session")
def frozen(
    made_data: PreparedData, made_models: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A STUDY folder of 20 comparisons and two repeats; not to be changed."""
    out = tmp_path_factory.mktemp("frozen") / "study"
    settings = StudySettings(per_finding=10, seed=3, repeats=2)
    create_study(made_models[:2], made_data.folder, FINDINGS, out, settings)
    return out


@pytest.fixture
def study(frozen: Path, tmp_path: Path) -> Study:
    """A copy of it."""
    return Study.open(Path(shutil.copytree(frozen, tmp_path / "study")))
