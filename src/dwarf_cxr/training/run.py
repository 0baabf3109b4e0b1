"""From the words of a command to a training: method, overrides and data become a RunConfig."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from dwarf_cxr import __version__
from dwarf_cxr.config import (
    RegionSource,
    ReportAttentionSettings,
    RunConfig,
    prompted,
    with_overrides,
)
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import sha256_of
from dwarf_cxr.findings import select
from dwarf_cxr.methods import Method, find_method
from dwarf_cxr.models.checkpoint import load_model, model_folder
from dwarf_cxr.models.clip import ClipClassifier
from dwarf_cxr.models.initial import refuse_other_architecture, settings_from
from dwarf_cxr.models.retinanet import RetinaNet
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.progress import Report
from dwarf_cxr.training.loop import train
from dwarf_cxr.training.report_attention import (
    as_detector,
    reports_digest,
    train_report_attention,
)
from dwarf_cxr.training.zero_shot import write_zero_shot_run


def make_config(
    method: str | Method,
    data: Path,
    *,
    findings: Sequence[str] | None = None,
    epochs: int | None = None,
    regions: RegionSource | None = None,
    seed: int = 0,
    init: Path | None = None,
    reports: Sequence[Path] = (),
    corpus: Path | None = None,
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """The configuration of a run of a method of `dwarf train`, by its name, or of another.

    Args:
        init: a run or model folder to start from; its architecture replaces the method's, or it is
            the detector of `report-attention`.
        reports: prepared data whose films and texts train `report-attention`; without, those of
            `data` do.
        corpus: a text file of further reports for its word vectors.

    Raises:
        ConfigError: unknown method, finding or setting, or settings that contradict each other.
        DataError: `data` is not a prepared data set.
    """
    chosen_method = find_method(method) if isinstance(method, str) else method
    settings = chosen_method.settings
    initial = None if init is None else load_model(init)
    if isinstance(initial, VisionLanguageClassifier):
        model = settings_from(initial, prompted(settings))
        settings = settings.model_copy(update={"model": model})
    settings = with_overrides(settings, settings_file, assignments)
    if isinstance(initial, VisionLanguageClassifier):
        refuse_other_architecture(initial, prompted(settings))
    if epochs is not None:
        settings = with_overrides(settings, None, [f"training.epochs={epochs}"])
    if regions is not None:
        settings = with_overrides(settings, None, [f"objective.regions={regions}"])
    prepared = PreparedData.open(data)
    chosen = prepared.findings if findings is None else findings
    reads_reports = isinstance(settings.model, ReportAttentionSettings)
    if reads_reports:
        chosen = _findings_of_detector(as_detector(initial, init), findings)
    elif reports or corpus is not None:
        raise ConfigError(
            f"--reports and --corpus are for report-attention, not {chosen_method.name}"
        )
    elif initial is not None and not isinstance(initial, VisionLanguageClassifier | ClipClassifier):
        raise ConfigError(
            f"--init {init}: {chosen_method.name} cannot start from a {type(initial).__name__}"
        )
    return RunConfig(
        method=chosen_method.name,
        findings=select(chosen, prepared.findings, where=f"--findings on {data}"),
        data=str(data),
        data_fingerprint=prepared.fingerprint,
        init=None if init is None else str(init),
        init_sha256=None if init is None else sha256_of(model_folder(init) / "model.safetensors"),
        reports=tuple(map(str, reports)),
        corpus=None if corpus is None else str(corpus),
        reports_sha256=reports_digest(reports, corpus) if reads_reports else None,
        seed=seed,
        settings=settings,
        versions={
            "dwarf-cxr": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "lightning-fabric": version("lightning-fabric"),
        },
    )


def _findings_of_detector(detector: RetinaNet, findings: Sequence[str] | None) -> tuple[str, ...]:
    if findings is not None and tuple(findings) != detector.findings:
        raise ConfigError(
            f"--findings {','.join(findings)}: report-attention has those of its detector, "
            f"{', '.join(detector.findings)}; leave --findings out"
        )
    return detector.findings


def start_training(
    method: str | Method,
    data: Path,
    out: Path,
    *,
    report: Report,
    findings: Sequence[str] | None = None,
    epochs: int | None = None,
    regions: RegionSource | None = None,
    seed: int = 0,
    init: Path | None = None,
    reports: Sequence[Path] = (),
    corpus: Path | None = None,
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
    resume: bool = False,
) -> None:
    """Train `method` on `data` into the run folder `out`; a zero-shot one is only asked.

    Raises:
        DwarfError: as `make_config` and `training.loop.train`.
    """
    config = make_config(
        method,
        data,
        findings=findings,
        epochs=epochs,
        regions=regions,
        seed=seed,
        init=init,
        reports=reports,
        corpus=corpus,
        settings_file=settings_file,
        assignments=assignments,
    )
    chosen = find_method(method) if isinstance(method, str) else method
    if chosen.zero_shot:
        write_zero_shot_run(config, out, report=report)
    elif isinstance(config.settings.model, ReportAttentionSettings):
        train_report_attention(config, out, resume=resume, report=report)
    else:
        train(config, out, resume=resume, report=report)
