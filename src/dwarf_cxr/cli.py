"""The `dwarf` command: thin, typed functions that import what they need when they are called."""

import enum
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from dwarf_cxr import __version__
from dwarf_cxr.errors import DwarfError
from dwarf_cxr.study.commands import study_app
from dwarf_cxr.web import require_web
from dwarf_cxr.web.options import AllowHostOption, HostOption, PortOption

app = typer.Typer(
    name="dwarf",
    help="Chest X-ray classifiers that look where a clinician looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare, check and look at a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")
export_app = typer.Typer(
    help="Write what a model says in the formats of other systems.", no_args_is_help=True
)
app.add_typer(export_app, name="export")
weights_app = typer.Typer(help="Take over weights of other projects.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(study_app, name="study")
review_app = typer.Typer(
    help="Clinicians judge films in a browser, mark regions, and give the data back.",
    no_args_is_help=True,
)
app.add_typer(review_app, name="review")


MOST_NOTES = 40
"""Notes of `data prepare` that are shown."""


class Source(enum.StrEnum):
    """Where `dwarf data prepare` reads from."""

    NIH = "nih"
    CHESTX_DET = "chestx-det"
    VINDR = "vindr"
    RSNA = "rsna"
    CHEXLOCALIZE = "chexlocalize"
    CHEXPERT_BOXES = "chexpert-boxes"
    OPENI = "openi"
    COVID = "covid"
    COCO = "coco"
    CSV = "csv"
    DICOM = "dicom"
    SYNTHETIC = "synthetic"


class Family(enum.StrEnum):
    """Whose weights `dwarf weights import` takes."""

    KAD = "kad"
    MEDKLIP = "medklip"
    MED_KEBERT = "med-kebert"
    VIT = "vit"
    CLIP = "clip"


class ClipMaps(enum.StrEnum):
    """What a map of CLIP compares a patch with."""

    DIFFERENCE = "difference"
    POSITIVE = "positive"


class Pixels(enum.StrEnum):
    """How the training of a ViT normalised its pixels."""

    HALF = "half"
    IMAGENET = "imagenet"
    MRM = "mrm"


class Uncertain(enum.StrEnum):
    """What an uncertain label becomes."""

    IGNORE = "ignore"
    ABSENT = "absent"
    PRESENT = "present"


class PaperTable(enum.StrEnum):
    """What `dwarf reproduce` reproduces."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    TABLE4 = "table4"
    FIG3 = "fig3"
    PROMPTS = "prompts"
    TEACHERS = "teachers"
    TRANSFER = "transfer"
    FEW_SHOT = "few-shot"
    ABLATIONS = "ablations"
    RELATED = "related"


class PaperScale(enum.StrEnum):
    """How large the trainings of `dwarf reproduce` are."""

    PAPER = "paper"
    STARTER = "starter"
    TINY = "tiny"


class NumberFormat(enum.StrEnum):
    """What a network predicts with."""

    FP32 = "fp32"
    BF16 = "bf16"


class OnnxInput(enum.StrEnum):
    """How an exported model takes its pixels."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


class Regions(enum.StrEnum):
    """Whose regions: clinicians', teachers', or teachers' where no clinician drew."""

    EXPERT = "expert"
    PSEUDO = "pseudo"
    BOTH = "both"


class RegionFormat(enum.StrEnum):
    """What `dwarf review export` writes."""

    COCO = "coco"
    LABEL_STUDIO = "label-studio"


FindingsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--findings", help="Comma-separated names, in the order wanted.", metavar="A,B"),
]
DataOption = Annotated[Path, typer.Option("--data", help="A folder that `data prepare` wrote.")]
RunOut = Annotated[Path, typer.Option(help="The RUN folder to write.")]
EpochsOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Passes over the images."),
]
SeedOption = Annotated[int, typer.Option(help="Fixes every random number.")]
SettingsFileOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config", help="YAML with settings, as in a run's config.yaml under `settings`."
    ),
]
SettingsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="One setting, for example schedule=cyclic; repeatable."),
]
ResumeOption = Annotated[bool, typer.Option(help="Continue an interrupted training.")]
RunArgument = Annotated[Path, typer.Argument(help="A RUN, or a bare model folder.")]
AskedArgument = Annotated[
    Path, typer.Argument(help="A RUN, a bare model folder, or a file of `export onnx`.")
]
PromptsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="YAML that maps a finding to the words it is asked with."),
]
PrecisionOption = Annotated[
    NumberFormat,
    typer.Option(help="bf16 is faster where the processor knows it; scores change a little."),
]
DicomFilms = Annotated[list[Path], typer.Argument(metavar="IMAGE.dcm", help="DICOM films.")]
DicomOut = Annotated[
    Path, typer.Option(help="The folder to write; each film gets a folder of its own in it.")
]

ReviewArgument = Annotated[
    Path, typer.Argument(metavar="REVIEW", help="A folder that `review serve` began.")
]
ReaderOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Whose word alone counts; else readers who agree, or the adjudicator."),
]


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
            help="The data set's folder (coco: or the JSON file itself; dicom: or a DICOMDIR; "
            "synthetic: films go to ROOT/films, by default OUT/films)."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the prepared images in pixels.")] = 224,
    splits: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with columns image_id and split; made by patient without it."),
    ] = None,
    findings: FindingsOption = None,
    seed: Annotated[int, typer.Option(help="Of made splits and of synthetic films.")] = 0,
    films: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="How many synthetic films to draw.", show_default="1000"),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Parallel workers; default one per core."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse what is otherwise noted.")] = False,
    assume_absent: Annotated[
        bool,
        typer.Option(
            help="coco: an image without a finding's region does not have it; chexpert-boxes: nor "
            "one whose report does not mention it."
        ),
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option(help="Public sets: leave out listed images that are not there.")
    ] = False,
    official_splits: Annotated[
        bool,
        typer.Option(help="nih: split by its official lists; that of test holds nearly all boxes."),
    ] = False,
    lung_opacity: Annotated[
        bool,
        typer.Option(
            help="nih: also Lung Opacity of RSNA's radiologists, from its tables by NIH file name."
        ),
    ] = False,
    unknown_views: Annotated[
        bool, typer.Option(help="openi, covid: keep films whose view no table tells.")
    ] = False,
    lateral: Annotated[
        bool,
        typer.Option(help="chexlocalize, chexpert-boxes, openi, covid: keep the lateral views."),
    ] = False,
    uncertain: Annotated[
        Uncertain, typer.Option(help="chexpert-boxes: what an uncertain label becomes.")
    ] = Uncertain.IGNORE,
    label_map: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Name the findings as in the shared vocabulary: 'shared' for the package's map, "
            "or a YAML file laid over it. Without it the set's own names stay.",
            metavar="shared|YAML",
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="csv, coco, dicom: what the set is called. Patients of one name are taken for the "
            "same people, of two names for others (dicom: by the link table)."
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="dicom: CSV of labels by SOPInstanceUID, StudyInstanceUID or path."),
    ] = None,
    link_table: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="dicom: who is behind the pseudonyms; stays with you. Default: "
            "~/.local/share/dwarf-cxr/links.csv."
        ),
    ] = None,
) -> None:
    """Decode and resize SOURCE once into the folder OUT, which everything else reads."""
    from dwarf_cxr.data.harmonise import harmonise_source
    from dwarf_cxr.data.label_map import load_label_map
    from dwarf_cxr.data.prepare import prepare as prepare_data
    from dwarf_cxr.data.sources import ReadOptions, read_source

    if films is not None and source is not Source.SYNTHETIC:
        raise typer.BadParameter(f"--films is for synthetic; leave it out for {source.value}")
    if splits is not None and official_splits:
        raise typer.BadParameter("give either --splits or --official-splits")
    names = None if label_map is None else load_label_map(label_map)
    read = read_source(
        source.value,
        root,
        out=out,
        options=ReadOptions(
            skip_missing=skip_missing,
            official_splits=official_splits,
            lung_opacity=lung_opacity,
            lateral=lateral,
            unknown_views=unknown_views,
            uncertain=uncertain.value,
            assume_absent=assume_absent,
            name=name,
            labels=labels,
            link_table=link_table,
        ),
        findings=_names(findings),
        size=size,
        films=films or 1000,
        seed=seed,
        workers=workers,
    )
    if source is Source.DICOM:
        from dwarf_cxr.data.identity import default_link_table

        # errors and tables name files by pseudonym: say where the way back is
        typer.echo(f"link table, keep it to yourself: {link_table or default_link_table()}")
    if names is not None:
        read = harmonise_source(read, names)
    try:
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
    except KeyboardInterrupt:
        raise DwarfError(f"{out}: interrupted; continue with the same command") from None
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
    regions: Annotated[
        Regions, typer.Option(help="Whose: clinicians', or those of `dwarf teachers`.")
    ] = Regions.EXPERT,
) -> None:
    """Draw a contact sheet with the regions on the films."""
    from dwarf_cxr.data.show import contact_sheet
    from dwarf_cxr.data.store import PreparedData

    contact_sheet(PreparedData.open(data).with_regions(regions.value), out, images=images)
    typer.echo(str(out))


@app.command()
def methods() -> None:
    """List the methods that `dwarf train` knows, with the supervision each needs."""
    from dwarf_cxr.methods import METHODS

    name, supervision = (
        max(len(getattr(method, field)) for method in METHODS) for field in ("name", "supervision")
    )
    for method in METHODS:
        typer.echo(f"{method.name:<{name}}  {method.supervision:<{supervision}}  {method.summary}")


@app.command()
def teachers(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The DATA folder to write, with pseudo regions.")],
    findings: FindingsOption = None,
    folds: Annotated[int, typer.Option(help="Nets per finding; each leaves out a fold.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over a finding's regions.")] = 30,
    size: Annotated[int, typer.Option(help="Side of the images that the nets see.")] = 128,
    seed: Annotated[int, typer.Option(help="Fixes every random number.")] = 0,
) -> None:
    """Train U-Nets on clinicians' regions, and write DATA again with the regions they draw.

    They draw on training images with the finding, each by the net that has not seen the patient.
    """
    from dwarf_cxr.training.pseudo_regions import teach
    from dwarf_cxr.training.teachers import TeacherSettings

    settings = TeacherSettings(folds=folds, epochs=epochs, size=size, seed=seed)
    with _shown_progress() as report:
        lines = teach(data, out, findings=_names(findings), settings=settings, report=report)
    typer.echo("\n".join(lines))
    typer.echo(f"{out}: next: dwarf train METHOD --data {out} --regions pseudo --out RUN")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="One of `dwarf methods`.")],
    data: DataOption,
    out: RunOut,
    findings: FindingsOption = None,
    epochs: EpochsOption = None,
    regions: Annotated[
        Optional[Regions],  # noqa: UP045
        typer.Option(
            help="Which regions train the maps: clinicians', those of `dwarf teachers`, or these "
            "where no clinician drew; the same as --set regions=.",
            show_default="expert",
        ),
    ] = None,
    seed: SeedOption = 0,
    init: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Start from the weights of a RUN or model folder; zero-shot methods need it."
        ),
    ] = None,
    reports: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            metavar="DATA",
            help="report-attention: prepared data whose films and texts it learns from; "
            "repeatable; without, those of --data.",
        ),
    ] = None,
    corpus: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="report-attention: a text of further reports, one a line, for its word vectors.",
        ),
    ] = None,
    config: SettingsFileOption = None,
    set_: SettingsOption = None,
    resume: ResumeOption = False,
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
            regions=None if regions is None else regions.value,
            seed=seed,
            init=init,
            reports=reports or (),
            corpus=corpus,
            settings_file=config,
            assignments=set_ or [],
            resume=resume,
            report=report,
        )
    # each of several devices has its own process; only torchrun's know their number among all
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(f"{out}: trained; next: dwarf evaluate {out} --data {data}")


@app.command()
def pretrain(
    data: DataOption,
    out: RunOut,
    findings: FindingsOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = 0,
    config: SettingsFileOption = None,
    set_: SettingsOption = None,
    resume: ResumeOption = False,
) -> None:
    """Pretrain on films with reports: which report is whose, and which findings are there."""
    from dwarf_cxr.methods.pretrain import METHOD
    from dwarf_cxr.training.run import start_training

    with _shown_progress() as report:
        start_training(
            METHOD,
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
    if os.environ.get("LOCAL_RANK", "0") == "0":
        typer.echo(f"{out}: pretrained; next: dwarf train dwarf --init {out} --data DATA --out RUN")


@app.command()
def evaluate(
    run: AskedArgument,
    data: DataOption,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Default: RUN/eval-SPLIT, or NAME-eval-SPLIT beside NAME.onnx."),
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws over patients.")] = 1000,
    save_maps: Annotated[bool, typer.Option(help="Also write maps.npz.")] = False,
    label_map: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="YAML that says which findings of other data are the model's; laid over the "
            "package's own."
        ),
    ] = None,
    precision: PrecisionOption = NumberFormat.FP32,
) -> None:
    """Score a run on a split with intervals, beside the image-blind references.

    On other data than it was trained on, the findings that both have are evaluated. Started several
    times by torchrun, each process scores a share of the images.
    """
    from dwarf_cxr.evaluation.processes import started_together
    from dwarf_cxr.evaluation.run import evaluate_run
    from dwarf_cxr.models.opening import evaluation_folder
    from dwarf_cxr.reporting.page import run_page

    folder = evaluation_folder(run, split) if out is None else out
    with started_together() as processes, _shown_progress() as report:
        lines = evaluate_run(
            run,
            data,
            split=split,
            out=folder,
            draws=draws,
            save_maps=save_maps,
            label_map=label_map,
            precision=precision.value,
            report=report if processes.first else None,
            processes=processes,
        )
        if not processes.first:
            return
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
    run: AskedArgument,
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM radiographs.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
    save_maps: Annotated[bool, typer.Option(help="Also write maps.npz.")] = False,
    precision: PrecisionOption = NumberFormat.FP32,
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="DICOM films: also write segmentations, overlay, presentation state and report.",
        ),
    ] = False,
) -> None:
    """Score radiographs and draw where each finding is: JSON, maps, boxes and overlays."""
    from dwarf_cxr.prediction import predict as predict_images

    if dicom:
        from dwarf_cxr.export.dicom import write_dicom

    with _shown_progress() as report:
        predict_images(
            run,
            images,
            out,
            findings=_names(findings),
            prompts=prompts,
            save_maps=save_maps,
            precision=precision.value,
            write_more=write_dicom if dicom else None,
            progress=report,
        )
    typer.echo(str(out / "predictions.json"))


@export_app.command("chexlocalize")
def export_chexlocalize(
    run: Annotated[Path, typer.Argument(help="A RUN, or a bare model folder.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    ground_truth: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="gt_segmentations_SPLIT.json, for the originals' sizes where images were shrunk."
        ),
    ] = None,
) -> None:
    """Write maps and segmentations for CheXlocalize's own evaluation scripts."""
    from dwarf_cxr.export.chexlocalize import export_maps

    with _shown_progress() as report:
        lines = export_maps(run, data, out, split=split, ground_truth=ground_truth, progress=report)
    typer.echo("\n".join([*lines, str(out / f"segmentations_{split}.json")]))


@export_app.command()
def dicom_seg(
    run: RunArgument,
    images: DicomFilms,
    out: DicomOut,
    fractional: Annotated[
        bool, typer.Option("--fractional", help="The maps themselves, of every finding.")
    ] = False,
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
) -> None:
    """Write DICOM segmentations: where each finding that is called present is."""
    kind = "segmentation-fractional" if fractional else "segmentation"
    _export_dicom(kind, run, images, out, findings, prompts)


@export_app.command()
def dicom_overlay(
    run: RunArgument,
    images: DicomFilms,
    out: DicomOut,
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
) -> None:
    """Write DICOM secondary captures: pictures of the films with the findings drawn on them."""
    _export_dicom("overlay", run, images, out, findings, prompts)


@export_app.command()
def dicom_presentation(
    run: RunArgument,
    images: DicomFilms,
    out: DicomOut,
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
) -> None:
    """Write DICOM presentation states: boxes that a viewer lays over the films."""
    _export_dicom("presentation", run, images, out, findings, prompts)


@export_app.command()
def dicom_report(
    run: RunArgument,
    images: DicomFilms,
    out: DicomOut,
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
) -> None:
    """Write DICOM structured reports: the score of every finding, and regions."""
    _export_dicom("report", run, images, out, findings, prompts)


@export_app.command("onnx")
def export_onnx(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The file to write, NAME.onnx.")],
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Prepared data whose validation films are also compared."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write NAME-int8.onnx, dynamically quantised.")
    ] = False,
    input_: Annotated[
        OnnxInput, typer.Option("--input", help="Pixels: uint8, or float32 in [0, 1].")
    ] = OnnxInput.UINT8,
) -> None:
    """Write the model as one ONNX file, once it answers as the network does."""
    from dwarf_cxr.export.onnx import export_onnx as export_model

    typer.echo("\n".join(export_model(run, out, data=data, int8=int8, pixels=input_.value)))


@weights_app.command("import")
def import_weights(
    family: Annotated[Family, typer.Argument(help="Whose weights they are.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="The checkpoint, or a folder; clip: a folder or a name on the Hugging Face hub.",
            metavar="FILE_OR_FOLDER",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; must not exist yet.")],
    text_encoder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="kad, med-kebert: a folder with the tokeniser and config.json of Med-KEBERT; "
            "medklip: Bio_ClinicalBERT."
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Unpickle in full what holds more than tensors: it can run any program."
        ),
    ] = False,
    image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="kad, medklip, clip: side of the films; KAD-1024 needs 1024."),
    ] = None,
    findings: FindingsOption = None,
    prompts: PromptsOption = None,
    pixels: Annotated[
        Optional[Pixels],  # noqa: UP045
        typer.Option(help="vit: how its training normalised pixels, if not as its layout does."),
    ] = None,
    positive: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="clip: the sentence that a finding is there; default '{finding}'."),
    ] = None,
    negative: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="clip: the sentence that it is not; default 'no {finding}'."),
    ] = None,
    maps: Annotated[
        Optional[ClipMaps],  # noqa: UP045
        typer.Option(help="clip: maps compare with both sentences, or with the positive alone."),
    ] = None,
) -> None:
    """Check weights of another project key by key and write them in this project's form."""
    from dwarf_cxr.weights.importing import import_foreign

    report = import_foreign(
        family.value,
        path,
        out,
        text_encoder=text_encoder,
        trust=trust,
        image_size=image_size,
        findings=_names(findings),
        prompts=prompts,
        pixels=None if pixels is None else pixels.value,
        positive=positive,
        negative=negative,
        maps=None if maps is None else maps.value,
    )
    typer.echo("\n".join(report.lines()))


@app.command()
def reproduce(
    table: Annotated[PaperTable, typer.Argument(help="A table or figure of the paper.")],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="A folder that `data prepare` wrote; repeatable."),
    ],
    out: Annotated[
        Path, typer.Option(help="Runs go to OUT/runs, the table to OUT/TABLE.csv and .html.")
    ],
    seeds: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Comma-separated.", show_default="0,1,2; 0 when tiny"),
    ] = None,
    scale: Annotated[
        PaperScale, typer.Option(help="As the paper states it, on a CPU, or in a minute.")
    ] = PaperScale.STARTER,
    init: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Start from a RUN or model folder; what table1's zero-shot rows ask."),
    ] = None,
    reports: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            metavar="DATA",
            help="related: prepared data whose films and texts train report-attention; repeatable.",
        ),
    ] = None,
    corpus: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="related: a text of further reports, one a line, for its word vectors.",
        ),
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The same as --scale tiny.")] = False,
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="One setting for all rows; repeatable."),
    ] = None,
    only: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only these rows, by name.", metavar="ROW,…"),
    ] = None,
    print_only: Annotated[
        bool, typer.Option("--print-only", help="Train nothing: evaluate and show what is trained.")
    ] = False,
) -> None:
    """Train and evaluate what a table of the paper compares, and set it beside its numbers.

    What is done is not done again: the same command continues where it stopped.
    """
    import shlex

    from dwarf_cxr.reproduce.command import reproduce as reproduce_table

    if tiny and scale is not PaperScale.STARTER and scale is not PaperScale.TINY:
        raise typer.BadParameter("give either --tiny or --scale")
    with _shown_progress() as report:
        shown = reproduce_table(
            table.value,
            data,
            out,
            scale=PaperScale.TINY.value if tiny else scale.value,
            seeds=_numbers(seeds),
            assignments=set_ or [],
            init=init,
            reports=reports or (),
            corpus=corpus,
            only=_names(only),
            print_only=print_only,
            command=shlex.join(["dwarf", *sys.argv[1:]]),
            report=report,
        )
    typer.echo(shown)


@review_app.command("serve")
def review_serve(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A DATA folder; only read.")],
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A RUN, or a bare model folder, whose answers are suggestions."),
    ] = None,
    review: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The REVIEW folder; by default DATA-review, beside DATA."),
    ] = None,
    readers: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Comma-separated names of the readers.", metavar="A,B"),
    ] = None,
    adjudicator: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Who decides where readers disagree."),
    ] = None,
    order: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="uncertainty (with a run the default), disagreement (of the run with the "
            "labels), data, or a file with an image id a line.",
            metavar="ORDER",
        ),
    ] = None,
    findings: FindingsOption = None,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Whose films are queued: train, val, test or all (the default). Where a model "
            "suggests, train keeps its word out of what it is scored by.",
        ),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    allow_host: AllowHostOption = None,
) -> None:
    """Serve pages on which readers judge and mark the films of DATA, finding by finding.

    Prints a private link for each reader. Everything is saved at once in the REVIEW folder; called
    again, the review goes on.
    """
    require_web()
    from dwarf_cxr.review.command import serve_review

    serve_review(
        data,
        run=run,
        review=review,
        readers=_names(readers),
        adjudicator=adjudicator,
        order=order,
        findings=_names(findings),
        split=split,
        host=host,
        port=port,
        names=allow_host or [],
        say=typer.echo,
    )


@review_app.command("invite")
def review_invite(
    review: ReviewArgument,
    readers: Annotated[list[str], typer.Argument(metavar="READER", help="Names.")],
    add: Annotated[
        bool, typer.Option("--add", help="Add those who are no readers of the review yet.")
    ] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    allow_host: AllowHostOption = None,
) -> None:
    """Print a private link for each reader; one whose link was withdrawn gets a new one."""
    require_web()
    from dwarf_cxr.review.command import invite
    from dwarf_cxr.web.serving import bound_to

    invited = invite(review, readers, host=host, port=port, names=allow_host or [], adding=add)
    for name, link in invited:
        typer.echo(f"{name}: {link}")
    typer.echo(
        bound_to(("dwarf", "review", "serve", "DATA"), host, port, allow_host or ()), err=True
    )


@review_app.command("withdraw")
def review_withdraw(
    review: ReviewArgument,
    readers: Annotated[list[str], typer.Argument(metavar="READER", help="Names.")],
) -> None:
    """End readers' links and open sessions, at once, also while serving; their words are kept."""
    require_web()
    from dwarf_cxr.review.command import withdraw

    withdraw(review, readers)
    for name in readers:
        typer.echo(f"{name}: link withdrawn; `dwarf review invite` gives a new one")


@review_app.command("status")
def review_status(review: ReviewArgument) -> None:
    """Say how far the readers are, and how well they agree (kappa, IoU)."""
    require_web()
    from dwarf_cxr.review.command import status

    typer.echo("\n".join(status(review)))


@review_app.command("backup")
def review_backup(
    review: ReviewArgument,
    out: Annotated[Path, typer.Option(help="The new file to write.")],
) -> None:
    """Copy what the readers said into one file, also while the pages are served."""
    require_web()
    from dwarf_cxr.review.command import back_up

    typer.echo(str(back_up(review, out)))


@review_app.command("write")
def review_write(
    review: ReviewArgument,
    out: Annotated[Path, typer.Option(help="The new DATA folder to write.")],
    reader: ReaderOption = None,
) -> None:
    """Write DATA anew with the labels and regions of the review, for `train` to take up."""
    require_web()
    from dwarf_cxr.review.command import write_review
    from dwarf_cxr.review.words import count

    done = write_review(review, out, reader)
    typer.echo(
        f"{out}: {count(done.films, 'film')} assessed: {count(done.present, 'finding')} present, "
        f"{done.absent} absent, {done.unsure} unsure, {done.undecided} undecided; "
        f"{count(done.regions, 'region')}, {count(done.changed_labels, 'label')} changed"
    )
    for sentence in done.left_out:
        typer.echo(sentence)
    typer.echo(f"next: dwarf train METHOD --data {out} --out RUN")


@review_app.command("export")
def review_export(
    review: ReviewArgument,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[
        RegionFormat, typer.Option("--format", help="Of the file.")
    ] = RegionFormat.COCO,
    reader: ReaderOption = None,
    images: Annotated[
        bool, typer.Option("--images", help="Write the films too, into OUT-images beside it.")
    ] = False,
) -> None:
    """Write regions and labels for other programs."""
    require_web()
    from dwarf_cxr.review.command import export

    typer.echo("\n".join(export(review, form.value, out, reader, with_images=images)))


@review_app.command("import")
def review_import(
    review: ReviewArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A COCO file.")],
    reader: Annotated[str, typer.Option(help="Whose words they are.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the reader has said something else.")
    ] = False,
) -> None:
    """Enter the regions and labels of a COCO file as the words of a reader."""
    require_web()
    from dwarf_cxr.review.command import import_regions

    typer.echo("\n".join(import_regions(review, file, reader, replacing=replace)))


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # names of files that are not UTF-8 are printed as they are
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        app()
    except (DwarfError, OSError) as error:  # OSError: a full disk, a folder without permission
        if os.environ.get("DWARF_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _export_dicom(
    kind: str,
    run: Path,
    images: list[Path],
    out: Path,
    findings: str | None,
    prompts: Path | None,
) -> None:
    from dwarf_cxr.export.dicom import Kind, export_dicom

    with _shown_progress() as report:
        files = export_dicom(
            run,
            images,
            out,
            [Kind(kind)],
            findings=_names(findings),
            prompts=prompts,
            progress=report,
        )
    for file in files:
        typer.echo(str(file))
    if len(files) < len(images):
        nothing = len(images) - len(files)
        typer.echo(f"{nothing} of {len(images)} films: no finding is called present, no file")


def _names(findings: str | None) -> tuple[str, ...] | None:
    if findings is None:
        return None
    return tuple(name.strip() for name in findings.split(",") if name.strip())


def _numbers(seeds: str | None) -> tuple[int, ...] | None:
    names = _names(seeds)
    if names is None:
        return None
    if not names or not all(name.isdecimal() for name in names):
        raise typer.BadParameter(f"--seeds {seeds}: give whole numbers from 0, as in 0,1,2")
    return tuple(map(int, names))


def _shown_progress():  # type: ignore[no-untyped-def]
    from dwarf_cxr.progress import shown_progress

    return shown_progress()


if __name__ == "__main__":
    main()
