"""The `dwarf` command: thin, typed functions that import what they need when they are called."""

import enum
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from dwarf_cxr import __version__
from dwarf_cxr.errors import DwarfError

app = typer.Typer(
    name="dwarf",
    help="Chest X-ray classifiers that look where a clinician looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare, check and look at a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")


MOST_NOTES = 40
"""Notes of `data prepare` that are shown."""


class Source(enum.StrEnum):
    """Where `dwarf data prepare` reads from."""

    NIH = "nih"
    CHESTX_DET = "chestx-det"
    OPENI = "openi"
    COVID = "covid"
    COCO = "coco"
    CSV = "csv"
    SYNTHETIC = "synthetic"


FindingsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--findings", help="Comma-separated names, in the order wanted.", metavar="A,B"),
]
DataOption = Annotated[Path, typer.Option("--data", help="A folder that `data prepare` wrote.")]


@app.callback(invoke_without_command=True)
def root(
    debug: Annotated[bool, typer.Option(help="Show a traceback on errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Chest X-ray classifiers that look where a clinician looks."""
    if debug:
        os.environ["DWARF_DEBUG"] = "1"
    if version:
        typer.echo(f"dwarf-cxr {__version__}")
        raise typer.Exit


@data_app.command()
def prepare(
    source: Annotated[Source, typer.Argument(help="Format of the data set.")],
    out: Annotated[Path, typer.Option(help="The DATA folder to write.")],
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The data set's folder (coco: or the JSON file itself; synthetic: films go to "
            "ROOT/films, by default OUT/films)."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the prepared images in pixels.")] = 224,
    splits: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with columns image_id and split; made by patient without it."),
    ] = None,
    findings: FindingsOption = None,
    seed: Annotated[int, typer.Option(help="Of made splits and of synthetic films.")] = 0,
    films: Annotated[int, typer.Option(help="How many synthetic films to draw.")] = 1000,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Parallel workers; default one per core."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse what is otherwise noted.")] = False,
    assume_absent: Annotated[
        bool, typer.Option(help="coco: an image without a finding's region does not have it.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option(help="Public sets: leave out listed images that are not there.")
    ] = False,
    official_splits: Annotated[
        bool,
        typer.Option(
            "--official-splits",
            help="nih: split by its official lists; that of test holds nearly all boxes.",
        ),
    ] = False,
    lateral: Annotated[bool, typer.Option(help="openi, covid: keep the lateral views.")] = False,
    unknown_views: Annotated[
        bool, typer.Option(help="openi, covid: keep films whose view no table tells.")
    ] = False,
) -> None:
    """Decode and resize SOURCE once into the folder OUT, which everything else reads."""
    from dwarf_cxr.data.prepare import prepare as prepare_data
    from dwarf_cxr.data.sources import read_source

    if splits is not None and official_splits:
        raise typer.BadParameter("give either --splits or --official-splits")
    read = read_source(
        source.value,
        root,
        out=out,
        size=size,
        films=films,
        seed=seed,
        workers=workers,
        assume_absent=assume_absent,
        skip_missing=skip_missing,
        official_splits=official_splits,
        lateral=lateral,
        unknown_views=unknown_views,
    )
    data = prepare_data(
        read,
        out,
        size=size,
        workers=workers,
        splits_csv=splits,
        seed=seed,
        findings=_names(findings),
        strict=strict,
    )
    counts = ", ".join(f"{split} {len(data.indices(split))}" for split in ("train", "val", "test"))
    typer.echo(f"{out}: {len(data.image_ids)} images of {data.name} ({counts})")
    for note in data.notes[:MOST_NOTES]:
        typer.echo(f"note: {note}")
    if len(data.notes) > MOST_NOTES:
        typer.echo(f"note: {len(data.notes) - MOST_NOTES} more in {out / 'dataset.json'}")


@data_app.command()
def check(data: Annotated[Path, typer.Argument(help="A DATA folder.")]) -> None:
    """List every fault of a prepared data set in one pass; exit 1 if there is an error."""
    from dwarf_cxr.data.check import check as check_data

    faults = check_data(data)
    for fault in faults:
        typer.echo(f"{fault.severity}: {fault.where}: {fault.what}; {fault.remedy}")
    errors = sum(fault.severity == "error" for fault in faults)
    typer.echo(f"{data}: {errors} errors, {len(faults) - errors} warnings")
    if errors:
        raise typer.Exit(1)


@data_app.command()
def show(
    data: Annotated[Path, typer.Argument(help="A DATA folder.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("contact-sheet.png"),
    images: Annotated[int, typer.Option(help="How many films to draw.")] = 24,
) -> None:
    """Draw a contact sheet with the regions on the films."""
    from dwarf_cxr.data.show import contact_sheet
    from dwarf_cxr.data.store import PreparedData

    contact_sheet(PreparedData.open(data), out, images=images)
    typer.echo(str(out))


@app.command()
def methods() -> None:
    """List the methods that `dwarf train` knows, with the supervision each needs."""
    from dwarf_cxr.methods import METHODS

    for method in METHODS:
        typer.echo(f"{method.name:<12} {method.supervision:<19} {method.summary}")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="One of `dwarf methods`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The RUN folder to write.")],
    findings: FindingsOption = None,
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the images.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Fixes every random number.")] = 0,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML with settings, as in a run's config.yaml under `settings`."),
    ] = None,
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="One setting, for example schedule=cyclic; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted training.")] = False,
) -> None:
    """Train METHOD on the training split and choose its epoch and thresholds on validation."""
    from dwarf_cxr.training.run import start_training

    with _shown_progress() as report:
        start_training(
            method,
            data,
            out,
            findings=_names(findings),
            epochs=epochs,
            seed=seed,
            settings_file=config,
            assignments=set_ or [],
            resume=resume,
            report=report,
        )
    typer.echo(f"{out}: trained; next: dwarf evaluate {out} --data {data}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A RUN, or a bare model folder.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Default: RUN/eval-SPLIT."),
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws over patients.")] = 1000,
    save_maps: Annotated[bool, typer.Option(help="Also write maps.npz.")] = False,
) -> None:
    """Score a run on a split with intervals, beside the image-blind references."""
    from dwarf_cxr.evaluation.run import evaluate_run
    from dwarf_cxr.reporting.page import run_page

    folder = run / f"eval-{split}" if out is None else out
    lines = evaluate_run(run, data, split=split, out=folder, draws=draws, save_maps=save_maps)
    with _shown_progress() as report:
        page = run_page(run, split=split, data=data, evaluation=folder, progress=report)
    typer.echo("\n".join([*lines, str(folder / "metrics.json"), str(page)]))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs; the first is the baseline.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where the prepared data lies now, if it was moved."),
    ] = None,
    split: Annotated[str, typer.Option(help="The evaluated split to compare.")] = "test",
) -> None:
    """Compare evaluated runs pair by pair on one self-contained page with figures."""
    from dwarf_cxr.reporting.page import compare as compare_runs

    with _shown_progress() as report:
        page = compare_runs(runs, out, data=data, split=split, progress=report)
    typer.echo(str(page))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A RUN, or a bare model folder.")],
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG radiographs.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    findings: FindingsOption = None,
    prompts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML that maps a finding to the words it is asked with."),
    ] = None,
    save_maps: Annotated[bool, typer.Option(help="Also write maps.npz.")] = False,
) -> None:
    """Score radiographs and draw where each finding is: JSON, maps, boxes and overlays."""
    from dwarf_cxr.prediction import predict as predict_images

    with _shown_progress() as report:
        predict_images(
            run,
            images,
            out,
            findings=_names(findings),
            prompts=prompts,
            save_maps=save_maps,
            progress=report,
        )
    typer.echo(str(out / "predictions.json"))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
    films: Annotated[int, typer.Option(help="How many films to draw.")] = 700,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.")] = 5,
) -> None:
    """Do the main job end to end on generated films: prepare, train two methods, compare."""
    from dwarf_cxr.demo import run_demo

    with _shown_progress() as report:
        page = run_demo(out, films=films, epochs=epochs, report=report)
    typer.echo(str(page))


def main() -> None:
    """Entry point: 0 done, 1 the input or the work failed, 2 wrong usage."""
    try:
        app()
    except (DwarfError, OSError) as error:  # OSError: a full disk, a folder without permission
        if os.environ.get("DWARF_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _names(findings: str | None) -> list[str] | None:
    if findings is None:
        return None
    return [name.strip() for name in findings.split(",") if name.strip()]


def _shown_progress():  # type: ignore[no-untyped-def]
    from dwarf_cxr.progress import shown_progress

    return shown_progress()


if __name__ == "__main__":
    main()
