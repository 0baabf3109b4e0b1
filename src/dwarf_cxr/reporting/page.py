"""The page of a report: one HTML file that holds everything and asks for nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from dwarf_cxr import __version__
from dwarf_cxr.config import differences
from dwarf_cxr.evaluation.boxes import THRESHOLDS as BOX_THRESHOLDS
from dwarf_cxr.evaluation.maps import HAM_THRESHOLD, IOR_THRESHOLDS, IOU_THRESHOLDS
from dwarf_cxr.evaluation.run import shared_finding_words
from dwarf_cxr.files import write_text
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.detectors import BOX_GROUPS, attribute_table, box_tables
from dwarf_cxr.reporting.examples import MOST_BOXES, make_gallery
from dwarf_cxr.reporting.figures import defined_findings, forest_plot, roc_curves, training_curves
from dwarf_cxr.reporting.intervals import NO_INTERVAL_RULE, VERDICT_RULE
from dwarf_cxr.reporting.mean_attention import mean_map_table
from dwarf_cxr.reporting.metrics import (
    ATTRIBUTE_METRICS,
    LOCALISATION_METRICS,
    METHOD_METRICS,
    ORACLE_F1_METRICS,
    ORACLE_METRICS,
    PAIRED_METRICS,
    SUMMARY_METRICS,
)
from dwarf_cxr.reporting.overlay import data_uri, embed, scale_picture, tint_scale_picture
from dwarf_cxr.reporting.runs import EvaluatedRun, all_findings, read_runs
from dwarf_cxr.reporting.tables import (
    ENOUGH_SEEDS,
    Paired,
    Row,
    device_words,
    finding_rows,
    has_enough_seeds,
    localisation_tables,
    method_rows,
    oracle_rows,
    pair_with_first,
    paired_finding_rows,
    paired_macro_rows,
    prior_sentences,
    seed_groups,
    summary_rows,
)

TEMPLATE = "compare.html.j2"
PAIRED_SEED = 0


@dataclass(frozen=True)
class _Figure:
    identifier: str
    title: str
    image: str
    alternative: str
    caption: str


@dataclass(frozen=True)
class _FindingTable:
    title: str
    rows: list[Row]


def compare(
    runs: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    split: str = "test",
    draws: int = 1000,
    cases_per_finding: int = 3,
    progress: Report | None = None,
) -> Path:
    """Write one self-contained page about evaluated runs; the first is the baseline.

    Args:
        data: where the evaluated data lies now; by default where the evaluation found it. When it
            is not there, the page is made without films and says so.
        draws: bootstrap draws of the paired differences.

    Returns:
        `out`.

    Raises:
        DwarfError: a run is missing, given twice, or not evaluated on the split.
        DataError: the runs were evaluated on different data, or `data` is not that data.
    """
    read = read_runs(runs, split)
    _write(read, out, data, draws, cases_per_finding, progress)
    return out


def run_page(
    run: Path,
    *,
    split: str = "test",
    data: Path | None = None,
    evaluation: Path | None = None,
    cases_per_finding: int = 3,
    progress: Report | None = None,
) -> Path:
    """Write report.html about one evaluated run beside its metrics.json.

    Args:
        evaluation: the folder with metrics.json, by default RUN/eval-SPLIT.

    Returns:
        The page's path.

    Raises:
        DwarfError: as `compare`.
    """
    read = read_runs([run], split, evaluation)
    out = read[0].evaluation / "report.html"
    _write(read, out, data, 0, cases_per_finding, progress)
    return out


def _write(
    runs: Sequence[EvaluatedRun],
    out: Path,
    data: Path | None,
    draws: int,
    cases_per_finding: int,
    progress: Report | None,
) -> None:
    gallery = make_gallery(runs, data, cases_per_finding, progress)
    if progress is not None:
        paired_words = f"paired differences in {draws:,} draws of patients, "
        words = paired_words if len(runs) > 1 else ""
        progress(f"{words}figures and tables", len(runs), len(runs))
    paired = pair_with_first(runs, draws)
    template = page_environment().from_string(_resource(TEMPLATE))
    page = template.render(
        version=__version__,
        title=_title(runs),
        runs=runs,
        metrics=SUMMARY_METRICS,
        summary=summary_rows(runs),
        sentences=prior_sentences(runs),
        cautions=_cautions(runs),
        paired_metrics=PAIRED_METRICS,
        paired_macro=paired_macro_rows(runs, paired),
        paired_findings=_paired_tables(runs, paired),
        draws=draws,
        own_draws=_own_draws(runs),
        verdict_rule=VERDICT_RULE,
        no_interval_rule=NO_INTERVAL_RULE,
        finding_count=len(all_findings(runs)),
        seeds=seed_groups(runs),
        enough_seeds=ENOUGH_SEEDS,
        figures=_figures(runs),
        method_metrics=METHOD_METRICS,
        methods=method_rows(runs),
        devices=_devices(runs),
        finding_tables=[_FindingTable(run.title, finding_rows(run)) for run in runs],
        localisation_metrics=LOCALISATION_METRICS,
        localisation_means=summary_rows(runs, LOCALISATION_METRICS),
        localisation_differences=paired_macro_rows(runs, paired, LOCALISATION_METRICS),
        localisation=localisation_tables(runs),
        iou_thresholds=IOU_THRESHOLDS,
        ior_thresholds=IOR_THRESHOLDS,
        ham_threshold=HAM_THRESHOLD,
        box_groups=BOX_GROUPS,
        box_thresholds=BOX_THRESHOLDS,
        boxes=box_tables(runs),
        most_boxes=MOST_BOXES,
        attribute_metrics=ATTRIBUTE_METRICS,
        attributes=attribute_table(runs),
        oracle_metrics=ORACLE_METRICS,
        oracle_f1_metrics=ORACLE_F1_METRICS,
        oracle=oracle_rows(runs),
        gallery=gallery,
        mean_maps=mean_map_table(runs),
        tint_scale=data_uri(tint_scale_picture(256, 12), lossless=True),
        scale=data_uri(scale_picture(256, 12), lossless=True),
        protocol=_protocol(runs, draws),
        settings=_settings(runs),
    )
    write_text(out, page)


def page_environment() -> Environment:
    """What renders pages; templates can include `style.css` and import `parts.html.j2`."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_resource),
    )


def _resource(name: str) -> str:
    return files("dwarf_cxr.reporting").joinpath(name).read_text(encoding="utf-8")


def _title(runs: Sequence[EvaluatedRun]) -> str:
    data = runs[0].protocol["data"]["name"]
    if len(runs) == 1:
        return f"{runs[0].title} on {data}"
    return f"{len(runs)} runs on {data}"


def _cautions(runs: Sequence[EvaluatedRun]) -> list[str]:
    cautions = []
    if len(runs) > 1 and not has_enough_seeds(runs):
        cautions.append(
            f"Fewer than {ENOUGH_SEEDS} seeds of each method are compared here: the intervals tell "
            "how these trained models differ on other patients, and support no claim about the "
            "methods, since another seed may turn the order."
        )
    if len({tuple(run.metrics["findings_order"]) for run in runs}) > 1:
        cautions.append(
            "The runs know different findings: their macro averages are over different sets. The "
            "paired differences use the findings that a run shares with the baseline."
        )
    cautions += [
        f"{run.title} was trained on other data ({run.protocol['trained_on']['name']}) than it is "
        "evaluated on."
        for run in runs
        if run.protocol["trained_on"]["fingerprint"] != run.fingerprint
    ]
    return cautions


def _paired_tables(runs: Sequence[EvaluatedRun], paired: Sequence[Paired]) -> list[_FindingTable]:
    return [
        _FindingTable(
            f"{run.title} minus {runs[0].title}", paired_finding_rows(one, PAIRED_METRICS)
        )
        for run, one in zip(runs[1:], paired, strict=True)
    ]


def _figures(runs: Sequence[EvaluatedRun]) -> list[_Figure]:
    names = ", ".join(run.title for run in runs)
    drawn = [
        (
            "forest",
            "AUC and Dice of every finding",
            forest_plot(runs),
            "Points are the values, bars their 95 % intervals. A grey bar is the Dice of the train "
            f"prior stored with {runs[0].name}: a map that is the same for every film."
            + _left_out(runs),
        ),
        (
            "roc",
            "ROC curves",
            roc_curves(runs),
            "Only assessed films count. The dotted diagonal is chance.",
        ),
        (
            "training",
            "Training",
            training_curves(runs),
            "Losses of methods with different objectives cannot be compared with each other. "
            "Validation values choose the epoch and are no result.",
        ),
    ]
    return [
        _Figure(key, title, embed(svg, "image/svg+xml"), f"{title}: {names}", caption)
        for key, title, svg, caption in drawn
        if svg is not None
    ]


def _devices(runs: Sequence[EvaluatedRun]) -> str:
    """What the predictions were timed on."""
    timed = [run.metrics["cost"] for run in runs if "cost" in run.metrics]
    return "; ".join(dict.fromkeys(map(device_words, timed)))


def _own_draws(runs: Sequence[EvaluatedRun]) -> str:
    """How many draws the intervals of the runs were made of."""
    counts = dict.fromkeys(int(run.protocol["bootstrap"]["draws"]) for run in runs)
    return " or ".join(f"{count:,}" for count in counts)


def _left_out(runs: Sequence[EvaluatedRun]) -> str:
    defined = defined_findings(runs)
    undefined = [name for name in all_findings(runs) if name not in defined]
    return f" Undefined, and so left out: {', '.join(undefined)}." if undefined else ""


def _protocol(runs: Sequence[EvaluatedRun], draws: int) -> list[tuple[str, list[str]]]:
    """What was done, as label and lines; one line where all runs agree."""

    def line(label: str, say: Callable[[EvaluatedRun], str]) -> tuple[str, list[str]]:
        said = [say(run) for run in runs]
        if len(set(said)) == 1:
            return label, said[:1]
        return label, [f"{run.name}: {words}" for run, words in zip(runs, said, strict=True)]

    rows = [
        line("Data", lambda run: str(run.protocol["data"]["name"])),
        line("Prepared data", lambda run: str(run.protocol["data"]["folder"])),
        line("Data fingerprint", lambda run: run.fingerprint),
        line("Split", lambda run: f"{run.protocol['split']}, {run.protocol['images']} films"),
        line("Findings", lambda run: ", ".join(run.metrics["findings_order"])),
        *_joined_findings(runs, line),
        line("Untrained: in the data, not in the model", _only("only_in_data")),
        line("Unmatched: in the model, not in the data", _only("only_in_model")),
        line("Label map", _label_map),
        line("Trained on", _trained_on),
        line("Splits SHA-256", lambda run: str(run.protocol["trained_on"]["splits_sha256"])),
        line("Maps", lambda run: str(run.protocol["map_policy"])),
        line("Thresholds", lambda run: str(run.protocol["threshold_policy"])),
        line("Intervals", _bootstrap),
        line("Shuffled reference", lambda run: f"mean of {run.protocol['shuffles']} permutations"),
        line("Query context", lambda run: str(run.protocol["query_context"])),
        line("Domain of the raw maps", lambda run: str(run.protocol["map_domain"])),
        line("Evaluated with", lambda run: f"dwarf-cxr {run.protocol['version']}"),
        line("Trained with", _versions),
        line("Folder", lambda run: str(run.folder)),
    ]
    if len(runs) > 1:
        paired = (
            f"the same patients are drawn for both runs, {draws:,} draws, seed {PAIRED_SEED}, "
            "however many the evaluations made"
        )
        intervals = [label for label, _ in rows].index("Intervals")
        rows.insert(intervals + 1, ("Paired differences", [paired]))
    return rows


Line = Callable[[str, Callable[[EvaluatedRun], str]], tuple[str, list[str]]]


def _joined_findings(runs: Sequence[EvaluatedRun], line: Line) -> list[tuple[str, list[str]]]:
    """What shared findings are made of, if any is more than one name."""

    def words(run: EvaluatedRun) -> str:
        return ". ".join(shared_finding_words(run.shared_findings)) or "—"

    return [line("Made of", words)] if any(words(run) != "—" for run in runs) else []


def _only(side: str) -> Callable[[EvaluatedRun], str]:
    """The findings of one side, model or data, that the other has no counterpart of."""

    def names(run: EvaluatedRun) -> str:
        return ", ".join(run.protocol["findings_not_evaluated"][side]) or "—"

    return names


def _label_map(run: EvaluatedRun) -> str:
    label_map = run.protocol.get("label_map")
    return "—" if label_map is None else f"{label_map['source']} ({label_map['sha256'][:12]}…)"


def _trained_on(run: EvaluatedRun) -> str:
    trained = run.protocol["trained_on"]
    same = trained["fingerprint"] == run.fingerprint
    relation = "the data evaluated here" if same else f"other data, {trained['fingerprint']}"
    return f"{trained['name']} ({relation})"


def _bootstrap(run: EvaluatedRun) -> str:
    bootstrap = run.protocol["bootstrap"]
    return (
        f"{bootstrap['interval']}, bootstrap over {bootstrap['unit']}s, "
        f"{bootstrap['draws']:,} draws, seed {bootstrap['seed']}"
    )


def _versions(run: EvaluatedRun) -> str:
    if run.config is None:
        return "a bare model folder: versions are not known"
    versions = ", ".join(f"{name} {version}" for name, version in run.config.versions.items())
    return versions or "versions were not recorded"


def _settings(runs: Sequence[EvaluatedRun]) -> list[tuple[str, list[str]]]:
    """For every other run, the settings in which it differs from the first."""
    first = runs[0].config
    if first is None:
        return []
    return [
        (run.title, differences(first, run.config) or ["no difference"])
        for run in runs[1:]
        if run.config is not None
    ]
