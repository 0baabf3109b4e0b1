"""Films with a report and labels but without any region train, and are evaluated."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest

from dwarf_cxr.config import RunConfig
from dwarf_cxr.data.covid import read_covid
from dwarf_cxr.data.openi import read_openi
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import SourceSet
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.training.loop import train
from dwarf_cxr.training.run import make_config
from tests.data.made_covid import MadeImage, write_covid
from tests.data.made_openi import MadeReport, write_openi
from tests.tiny import SIZE, settings, write_bert, write_vit

TERMS = (("normal",), ("Pleural Effusion/left",), ("Nodule/lung/apex/right", "Cardiomegaly"))
WORDS = ("cardiomegaly", "covid", "effusion", "nodule", "pneumonia")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    write_vit(folder / "vit")
    write_bert(folder / "bert", WORDS)
    return folder


def openi(root: Path) -> SourceSet:
    reports = tuple(
        MadeReport(number, f"Report {number}.", "", TERMS[number % 3]) for number in range(1, 25)
    )
    return read_openi(write_openi(root, reports))


def covid(root: Path) -> SourceSet:
    findings = ("Pneumonia/Viral/COVID-19", "No Finding", "Pneumonia", "todo")
    images = tuple(
        MadeImage(f"film{number}", str(number), findings[number % 4], notes=f"Note {number}.")
        for number in range(24)
    )
    return read_covid(write_covid(root, images))


@pytest.mark.parametrize(
    ("read", "findings"),
    [(openi, ["Effusion", "Nodule", "Cardiomegaly"]), (covid, ["COVID-19", "Pneumonia"])],
)
@pytest.mark.parametrize("assignments", [[], ["head=prior"]])
def test_it_trains_and_is_evaluated(encoders, tmp_path, read, findings, assignments):
    data = prepare(
        read(tmp_path / "set"), tmp_path / "data", size=SIZE, findings=findings, workers=1
    )
    assert not data.has_region().any()
    assert all(data.texts)
    config = RunConfig(
        method="dwarf",
        findings=data.findings,
        data=str(data.folder),
        data_fingerprint=data.fingerprint,
        seed=1,
        settings=settings(encoders / "vit", encoders / "bert", ["epochs=2", *assignments]),
    )
    run = tmp_path / "run"
    lines: list[str] = []
    train(config, run, report=lambda line, done, total: lines.append(line))
    assert sum("no training image has a region" in line for line in lines) == 1
    with (run / "history.csv").open(newline="") as stream:
        assert all(math.isfinite(float(row["label_loss"])) for row in csv.DictReader(stream))
    evaluate_run(run, data.folder, split="test", out=tmp_path / "eval", draws=5, save_maps=False)
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    dice = metrics["macro"]["dice"]
    assert dice["value"] is None
    assert dice["reason"]


def test_films_that_were_never_assessed_teach_nothing(encoders, tmp_path):
    source = covid(tmp_path / "set")
    unread = tuple(dataclasses.replace(one, labels={}) for one in source.radiographs)
    source = dataclasses.replace(source, findings=("Edema",), radiographs=unread)
    data = prepare(source, tmp_path / "data", size=SIZE, workers=1)
    config = RunConfig(
        method="dwarf",
        findings=data.findings,
        data=str(data.folder),
        data_fingerprint=data.fingerprint,
        settings=settings(encoders / "vit", encoders / "bert", ["epochs=1"]),
    )
    with pytest.raises(DataError, match="no training image was assessed for any of Edema"):
        train(config, tmp_path / "run", report=lambda line, done, total: None)


class StopError(Exception):
    """Stops a training at its first word."""


def without_regions(folder: Path, method: str, assignments: list[str]) -> RunConfig:
    data = prepare(covid(folder / "set"), folder / "data", size=SIZE, workers=1)
    return make_config(method, data.folder, assignments=assignments)


def test_a_detector_does_not_train_without_a_box(tmp_path):
    config = without_regions(tmp_path, "retinanet", [])
    said: list[str] = []
    with pytest.raises(DataError, match="nothing but boxes tells a detector") as refused:
        train(config, tmp_path / "run", report=lambda line, done, total: said.append(line))
    assert "give data with regions" in str(refused.value)
    assert not said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "advice"),
    [("ham", "--set box_weight=0"), ("gain", "method for such data is classifier")],
)
def test_other_methods_are_told_what_suits_such_data(tmp_path, method, advice):
    def stop(line: str, done: int, total: int) -> None:
        raise StopError(line)

    config = without_regions(tmp_path, method, [])
    with pytest.raises(StopError, match=f"no training image has a region.*{advice}"):
        train(config, tmp_path / "run", report=stop)
