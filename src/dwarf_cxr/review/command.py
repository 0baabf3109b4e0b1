"""What the `dwarf review` commands do."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import atomic_folder, write_bytes
from dwarf_cxr.progress import shown_progress
from dwarf_cxr.review.coco_files import export_coco, import_coco
from dwarf_cxr.review.folder import (
    DATABASE_FILE,
    Review,
    add_readers,
    begin,
    check_known,
    default_folder,
    open_review,
    read_settings,
)
from dwarf_cxr.review.image_names import film_file_name, original_folder
from dwarf_cxr.review.label_studio import export_label_studio
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.pictures import film_png
from dwarf_cxr.review.progress import agreement, progress
from dwarf_cxr.review.words import count
from dwarf_cxr.review.writing import TRAIN, Written, decisions, disputed_words, write

Say = Callable[[str], None]


def serve_review(
    data: Path,
    *,
    run: Path | None,
    review: Path | None,
    readers: Sequence[str] | None,
    adjudicator: str | None,
    order: str | None,
    findings: Sequence[str] | None,
    split: str | None,
    host: str,
    port: int,
    names: Sequence[str],
    say: Say,
) -> None:
    """Begin or go on with a review, and serve its pages until interrupted."""
    from dwarf_cxr.review.pages import application
    from dwarf_cxr.web.links import Links, Visitor
    from dwarf_cxr.web.serving import address, allowed_hosts, link, serve

    hosts = allowed_hosts(host, names)
    with shown_progress() as report:
        opened = begin(
            default_folder(data) if review is None else review,
            data,
            run=run,
            readers=readers,
            adjudicator=adjudicator,
            order=order,
            findings=findings,
            split=split,
            report=report,
        )
    links = Links.of(opened.folder)
    settings = opened.settings
    lines = [
        f"{opened.folder}: {count(len(settings.films), 'film')}, order: {settings.order}, "
        f"{count(len(settings.findings), 'finding')}"
    ]
    if warning := scored_films(opened):
        lines.append(warning)
    base = address(host, port, names)
    for name in settings.names:
        part = "adjudicator" if name == settings.adjudicator else "reader"
        lines.append(f"{part} {name}: {link(base, links, Visitor('reader', name))}")
    with closing(Ledger(opened.database)) as ledger:
        serve(
            application(opened, ledger, links, hosts=hosts),
            host=host,
            port=port,
            names=names,
            first=lines,
            say=say,
        )


def scored_films(review: Review) -> str | None:
    """What to say where a model's suggestions stand beside films by which models are scored."""
    scored = sum(review.data.splits[film] != TRAIN for film in review.settings.films)
    if review.suggestions is None or not scored:
        return None
    return (
        f"{count(scored, 'film')} of the val and test splits: whoever sees the model's suggestions "
        "there is led by what is to be scored; --split train queues films that train alone"
    )


def invite(
    folder: Path,
    readers: Sequence[str],
    *,
    host: str,
    port: int,
    names: Sequence[str],
    adding: bool = False,
) -> list[tuple[str, str]]:
    """Names and private links of readers; `adding` those who are new to the review."""
    from dwarf_cxr.web.links import Links, Visitor
    from dwarf_cxr.web.serving import address, link

    if adding:
        add_readers(folder, readers)
    else:
        check_known(read_settings(folder), readers, folder)
    links, base = Links.of(folder), address(host, port, names)
    for name in readers:
        links.admit(Visitor("reader", name))
    return [(name, link(base, links, Visitor("reader", name))) for name in readers]


def withdraw(folder: Path, readers: Sequence[str]) -> None:
    """End the links and open sessions of readers; what they said is kept."""
    from dwarf_cxr.web.links import Links, Visitor

    known = read_settings(folder).names
    if strangers := [name for name in readers if name not in known]:
        raise ConfigError(
            f"reader {', '.join(map(repr, strangers))}: not of this review; its readers: "
            f"{', '.join(known)}"
        )
    links = Links.of(folder)
    for name in readers:
        links.withdraw(Visitor("reader", name))


def back_up(folder: Path, out: Path) -> Path:
    """Copy what the readers said, also while the pages are served."""
    from dwarf_cxr.web.store import backup

    read_settings(folder)
    return backup(folder / DATABASE_FILE, out)


def write_review(folder: Path, out: Path, reader: str | None) -> Written:
    """Write the review's data anew; see `writing.write`."""
    review = open_review(folder)
    with closing(Ledger(review.database, to_read=True)) as ledger:
        return write(review, ledger, out, reader=reader)


def export(
    folder: Path, form: str, out: Path, reader: str | None, *, with_images: bool
) -> list[str]:
    """Write what was assessed for other programs; what to tell the user."""
    review = open_review(folder)
    with closing(Ledger(review.database, to_read=True)) as ledger:
        decided = decisions(review, ledger, reader)
    if not decided:
        raise ConfigError(f"{folder}: nothing has been assessed yet")
    write_it = export_coco if form == "coco" else export_label_studio
    if out.resolve().is_relative_to(review.data.folder.resolve()):
        raise ConfigError(f"{out}: lies in {review.data.folder}, which stays as it is")
    images, interface = out.with_name(f"{out.stem}-images"), out.with_suffix(".xml")
    for path in (out, *([images] if with_images else []), *([interface] if form != "coco" else [])):
        if path.exists():
            raise ConfigError(f"{path}: exists; remove it or choose another name for --out")
    films = sorted({film for film, _ in decided})
    if with_images:
        with atomic_folder(images) as fresh:
            for film in films:
                write_bytes(fresh / film_file_name(film), film_png(review, film))
            regions = write_it(review, decided, out, images=images.name)
        where = f"the films are in {images}"
    else:
        regions = write_it(review, decided, out)
        where = f"the films are only named, as files under {original_folder(review)}"
        where += "; --images writes them"
    disputed = sum(len(decision.disputed) for decision in decided.values())
    return [
        f"{out}: {count(regions, 'region')} in {count(len(films), 'film')}",
        *([disputed_words(disputed)] if disputed else []),
        where,
    ]


def import_regions(folder: Path, file: Path, reader: str, *, replacing: bool) -> list[str]:
    """Enter a COCO file as the words of a reader; what to tell the user."""
    check_known(read_settings(folder), [reader], folder)
    review = open_review(folder)
    with closing(Ledger(review.database)) as ledger:
        done = import_coco(review, ledger, file, reader, replacing=replacing)
    replaced = f"{count(done.replaced, 'finding')} replaced, as {reader} had said something else"
    return [
        *done.notes,
        *([replaced] if done.replaced else []),
        f"{count(done.films, 'film')}, {count(done.findings, 'finding')} and "
        f"{count(done.regions, 'region')} entered as the words of {reader}",
    ]


def status(folder: Path) -> list[str]:
    """How far the readers are, and how well they agree."""
    review = open_review(folder)
    with closing(Ledger(review.database, to_read=True)) as ledger:
        lines = [
            f"{one.reader}: {one.done} of {count(one.films, 'film')} done, {one.begun} begun"
            + (" (adjudicator)" if one.reader == review.settings.adjudicator else "")
            for one in progress(review, ledger)
        ]
        rows = agreement(review, ledger)
    if rows:
        lines.append("agreement: readers, finding, films both read, same verdict, kappa, mean IoU")
    for row in rows:
        kappa = "undefined" if row.kappa is None else f"{row.kappa:.2f}"
        iou = "none" if row.mean_iou is None else f"{row.mean_iou:.2f} on {row.compared}"
        lines.append(
            f"  {' and '.join(row.readers)}, {row.finding}: {row.films}, {row.agreed}, {kappa}, "
            f"{iou}"
        )
    return lines
