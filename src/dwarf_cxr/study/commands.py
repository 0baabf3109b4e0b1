"""`dwarf study`: thin, typed functions that import what they need when they are called."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from dwarf_cxr.web import require_web
from dwarf_cxr.web.options import AllowHostOption, HostOption, PortOption

study_app = typer.Typer(
    help="Blind comparison of runs' maps by readers, in a browser.", no_args_is_help=True
)

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="A folder of `study create`.")]


@study_app.command()
def create(
    run: Annotated[
        list[Path], typer.Option("--run", help="A RUN or bare model folder; two or more.")
    ],
    data: Annotated[Path, typer.Option("--data", help="A folder that `data prepare` wrote.")],
    out: Annotated[Path, typer.Option(help="The STUDY folder to write; must not exist yet.")],
    findings: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="A,B", help="Findings to compare; default all that are shared."),
    ] = None,
    per_finding: Annotated[int, typer.Option(min=1, help="Films for each finding.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Fixes which films are shown.")] = 0,
    repeats: Annotated[
        int, typer.Option(min=0, help="Comparisons that each reader is shown twice.")
    ] = 0,
    show_truth: Annotated[
        bool, typer.Option("--show-truth", help="Outline the true region for the readers.")
    ] = False,
    stretch: Annotated[
        bool,
        typer.Option(
            "--stretch",
            help="Colour each map from its least to its greatest value, not from 0 to 1.",
        ),
    ] = False,
    split: Annotated[str, typer.Option(help="Whose films are shown.")] = "test",
) -> None:
    """Freeze films and maps into STUDY, so that readers can compare them blind."""
    from dwarf_cxr.progress import shown_progress
    from dwarf_cxr.study.create import StudySettings, create_study
    from dwarf_cxr.study.folder import read_key

    settings = StudySettings(per_finding, seed, repeats, show_truth, stretch, split)
    names = None if findings is None else [name.strip() for name in findings.split(",")]
    with shown_progress() as report:
        study = create_study(run, data, names, out, settings, report)
    for sentence in read_key(out).trained_elsewhere(study):
        typer.echo(f"warning: {sentence}", err=True)
    if study.small_films:
        typer.echo(
            f"warning: {study.small_films} of {len(study.films)} films are shown as {data} has "
            "them, small: their original is gone or has changed since it was prepared",
            err=True,
        )
    typer.echo(
        f"{len(study.comparisons)} comparisons of {len(run)} runs on {len(study.films)} films; "
        f"now invite readers: dwarf study invite {out} NAME…"
    )


@study_app.command()
def invite(
    study: StudyArgument,
    readers: Annotated[list[str], typer.Argument(metavar="READER…", help="Names of readers.")],
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    allow_host: AllowHostOption = None,
) -> None:
    """Print one private link for each reader; asking again prints the same link.

    A reader whose link was withdrawn gets a new one.
    """
    require_web()
    from dwarf_cxr.study.answers import invite as invite_readers
    from dwarf_cxr.study.answers import open_answers
    from dwarf_cxr.study.folder import Study, read_key
    from dwarf_cxr.web.links import Links, Visitor
    from dwarf_cxr.web.serving import address, bound_to, link

    opened = Study.open(study)
    names = invite_readers(open_answers(opened), opened, read_key(study), readers)
    links, base = Links.of(study), address(host, port, allow_host or ())
    for name in names:
        links.admit(Visitor("reader", name))
        typer.echo(f"{name}\t{link(base, links, Visitor('reader', name))}")
    typer.echo(
        bound_to(("dwarf", "study", "serve", str(study)), host, port, allow_host or ()), err=True
    )


@study_app.command()
def withdraw(
    study: StudyArgument,
    readers: Annotated[list[str], typer.Argument(metavar="READER…", help="Names of readers.")],
) -> None:
    """End readers' links and open sessions, at once, also while serving; answers are kept."""
    require_web()
    from dwarf_cxr.study.answers import invited, open_answers
    from dwarf_cxr.study.folder import Study
    from dwarf_cxr.web.links import Links, Visitor

    names = invited(open_answers(Study.open(study)), readers)
    links = Links.of(study)
    for name in names:
        links.withdraw(Visitor("reader", name))
        typer.echo(f"{name}: link withdrawn; `dwarf study invite` gives a new one")


@study_app.command()
def serve(
    study: StudyArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    allow_host: AllowHostOption = None,
) -> None:
    """Serve the pages until Ctrl-C; answers are on the disk before they are confirmed.

    Prints every invited reader's link at this address.
    """
    require_web()
    from dwarf_cxr.study.answers import invited, open_answers
    from dwarf_cxr.study.folder import Study
    from dwarf_cxr.web.links import Visitor
    from dwarf_cxr.web.serving import address, allowed_hosts, link
    from dwarf_cxr.web.serving import serve as serve_application
    from dwarf_cxr.web.study import build_study

    names = allow_host or []
    opened = Study.open(study)
    engine = open_answers(opened)
    readers = invited(engine)
    engine.dispose()
    application = build_study(opened, allowed_hosts(host, names))
    base = address(host, port, names)
    typer.echo(f"links at {base}; those printed for another host or port do not lead here")
    for name in readers:
        typer.echo(f"reader {name}: {link(base, application.links, Visitor('reader', name))}")
    serve_application(application, host=host, port=port, names=names, say=typer.echo)


@study_app.command()
def report(
    study: StudyArgument,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for report.html and CSV tables.", show_default="STUDY/report"),
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws.")] = 2000,
) -> None:
    """Say whose maps the readers prefer, how sure that is, and write tables and a page."""
    require_web()
    from dwarf_cxr.study.report import write_report

    typer.echo("\n".join(write_report(study, study / "report" if out is None else out, draws)))


@study_app.command()
def backup(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="The file to write; must not exist yet.")],
) -> None:
    """Copy readers and answers into one file, also while readers are at work."""
    require_web()
    from dwarf_cxr.study.folder import Study
    from dwarf_cxr.web.store import backup as copy_database

    typer.echo(str(copy_database(Study.open(study).database, out)))
