"""A REVIEW folder: which data is reviewed, by whom, in which order; never inside DATA.

review.json     this file's `Settings`
review.db       what readers said, every change of it (`ledger.py`)
secret          signs the private links (`web/links.py`)
suggestions/    what the model says (`suggestions.py`)
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwarf_cxr.data.rows import doubles, listed
from dwarf_cxr.data.splits import SPLITS
from dwarf_cxr.data.store import DATASET_FILE, PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.files import exclusive, read_json, write_json
from dwarf_cxr.findings import select
from dwarf_cxr.progress import Report
from dwarf_cxr.review.queue import (
    disagreement,
    highest_first,
    listed_order,
    uncertainty,
)
from dwarf_cxr.review.suggestions import Suggestions, as_tuple, open_suggestions, suggest

FORMAT = "dwarf-review-1"
SETTINGS_FILE = "review.json"
DATABASE_FILE = "review.db"
DEFAULT_READER = "reader"
_NAME = re.compile(r"[\w][\w .+-]{0,39}")
ALL = "all"
UNCERTAINTY, DISAGREEMENT = "uncertainty", "disagreement"


@dataclass(frozen=True)
class Settings:
    """What was decided when the review was begun, or begun again with other options."""

    data: str
    data_fingerprint: str
    findings: tuple[str, ...]
    readers: tuple[str, ...]
    adjudicator: str | None
    run: str | None
    order: str
    """`uncertainty`, `disagreement`, `data`, or the name of a file."""
    films: tuple[int, ...]
    """Indices in DATA of the films to review, in the order in which they are shown."""
    split: str = ALL
    """Whose films are queued: train, val, test or all."""

    @property
    def names(self) -> tuple[str, ...]:
        """All who read: the readers, and the adjudicator as the last."""
        third = self.adjudicator
        return (*self.readers, *([] if third is None or third in self.readers else [third]))


@dataclass(frozen=True, eq=False)
class Review:
    """An open review: its settings, its data, and what the model suggests."""

    folder: Path
    settings: Settings
    data: PreparedData
    suggestions: Suggestions | None

    @property
    def database(self) -> Path:
        """Where the readers' words are."""
        return self.folder / DATABASE_FILE

    def frame(self, film: int) -> tuple[int, int]:
        """(width, height) of an original film."""
        return int(self.data.widths[film]), int(self.data.heights[film])


def default_folder(data: Path) -> Path:
    """The REVIEW folder of DATA: beside it."""
    data = Path(data).resolve()
    return data.with_name(f"{data.name}-review")


def begin(
    folder: Path,
    data_folder: Path,
    *,
    run: Path | None = None,
    readers: Sequence[str] | None = None,
    adjudicator: str | None = None,
    order: str | None = None,
    findings: Sequence[str] | None = None,
    split: str | None = None,
    report: Report | None = None,
) -> Review:
    """Begin a review, or go on with one; options that are None stay as they were.

    Args:
        split: whose films are queued, train, val or test; all is what a new review has.

    Raises:
        ConfigError: an option is wrong, the folder lies in DATA, or an order needs a run.
        DataError: the data is not the one that the review was begun with.
    """
    data = PreparedData.open(data_folder)
    folder = Path(folder)
    if data.folder.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(f"{folder}: lies in {data.folder}, which stays as it is; choose another")
    if (folder / DATASET_FILE).exists():
        raise ConfigError(f"{folder}: is a DATA folder; choose another folder for the review")
    with exclusive(folder):
        earlier = read_settings(folder) if (folder / SETTINGS_FILE).is_file() else None
        if earlier is not None:
            _check_same(earlier, data, folder)
        names = earlier.readers if earlier is not None else (DEFAULT_READER,)
        names = names if readers is None else tuple(readers)
        third = adjudicator or (None if earlier is None else earlier.adjudicator)
        check_names([*names, *([third] if third else [])])
        if findings is not None:
            wanted = select(findings, data.findings, where="--findings")
        else:
            wanted = data.findings if earlier is None else earlier.findings
        run_folder = str(run) if run is not None else (None if earlier is None else earlier.run)
        suggestions = None
        if run is not None:
            suggestions = suggest(folder, run, data, wanted, report=report)
        elif run_folder is not None:
            suggestions = open_suggestions(folder, data)
        of_split = split or (ALL if earlier is None else earlier.split)
        is_as_queued = earlier is not None and of_split == earlier.split
        order_name, films = _ordered(
            earlier, order, run is not None, is_as_queued, data, suggestions
        )
        films = _of_split(films, of_split, data)
        settings = Settings(
            data=str(data.folder.resolve()),
            data_fingerprint=data.fingerprint,
            findings=tuple(wanted),
            readers=names,
            adjudicator=third,
            run=run_folder,
            order=order_name,
            films=films,
            split=of_split,
        )
        if settings != earlier:
            write_settings(folder, settings)
    return Review(folder, settings, data, suggestions)


def open_review(folder: Path) -> Review:
    """A review that was begun, with the data it was begun with.

    Raises:
        DataError: no review there, or its data moved or changed.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    if not (Path(settings.data) / DATASET_FILE).is_file():
        raise DataError(
            f"{folder}: its data is no longer in {settings.data}; say where with "
            f"`dwarf review serve DATA --review {folder}`"
        )
    data = PreparedData.open(Path(settings.data))
    _check_same(settings, data, folder)
    return Review(folder, settings, data, open_suggestions(folder, data))


def _ordered(
    earlier: Settings | None,
    order: str | None,
    is_run_given: bool,
    is_as_queued: bool,
    data: PreparedData,
    suggestions: Suggestions | None,
) -> tuple[str, tuple[int, ...]]:
    """The name of the order and the films in it; without `order` what it was, if it was any."""
    if order is None and earlier is not None:
        has_new_scores = is_run_given and earlier.order in ("data", UNCERTAINTY, DISAGREEMENT)
        if not has_new_scores and is_as_queued:
            return earlier.order, earlier.films
        # with the first run there is an order by it, which is the default
        order = UNCERTAINTY if has_new_scores and earlier.run is None else earlier.order
    order = order or (UNCERTAINTY if suggestions is not None else "data")
    return order, order_of(order, data, suggestions)


def _of_split(films: tuple[int, ...], split: str, data: PreparedData) -> tuple[int, ...]:
    """The films that belong to a split, in their order.

    Raises:
        ConfigError: no such split, or none of its films is to be reviewed.
    """
    if split not in (*SPLITS, ALL):
        raise ConfigError(f"--split {split}: it can be {', '.join(SPLITS)} or {ALL}")
    chosen = tuple(film for film in films if split in (ALL, data.splits[film]))
    if films and not chosen:
        raise ConfigError(f"--split {split}: none of the {len(films)} films is in it; choose {ALL}")
    return chosen


def order_of(order: str, data: PreparedData, suggestions: Suggestions | None) -> tuple[int, ...]:
    """The films in the order asked for.

    Raises:
        ConfigError: an order by the model without one.
        DataError: a list of films is wrong.
    """
    if order == "data":
        return tuple(range(len(data.image_ids)))
    if order in (UNCERTAINTY, DISAGREEMENT):
        if suggestions is None:
            raise ConfigError(f"--order {order}: needs a model's scores; name one with --run")
        about = suggestions.about
        if order == UNCERTAINTY:
            values = uncertainty(suggestions.scores, about.thresholds)
        else:
            labels = data.restrict(about.findings).labels
            values = disagreement(suggestions.scores, labels, about.thresholds)
        return tuple(highest_first(values).tolist())
    return tuple(listed_order(Path(order), data.image_ids).tolist())


def add_readers(folder: Path, names: Sequence[str]) -> None:
    """Make sure that readers belong to the review.

    Raises:
        ConfigError: a name is not usable.
    """
    check_names(names)
    read_settings(folder)  # a folder that is none stays as it is
    with exclusive(folder):
        settings = read_settings(folder)
        known = (*settings.readers, settings.adjudicator)
        new = tuple(name for name in names if name not in known)
        if new:
            write_settings(folder, dataclasses.replace(settings, readers=(*settings.readers, *new)))


def check_known(settings: Settings, names: Sequence[str], folder: Path) -> None:
    """Refuse names of nobody who reads in the review: a slip of the pen becomes no reader.

    Raises:
        ConfigError: it names them, those who do, and how to add one.
    """
    check_names(names)
    if strangers := [name for name in names if name not in settings.names]:
        raise ConfigError(
            f"reader {', '.join(map(repr, strangers))}: not of this review; its readers: "
            f"{', '.join(settings.names)}; add one with `dwarf review invite {folder} "
            f"{shlex.join(strangers)} --add`"
        )


def check_names(names: Sequence[str]) -> None:
    """Refuse names that could not stand as annotators.

    Raises:
        ConfigError: none, one twice, or one that is not a short name.
    """
    if not names:
        raise ConfigError("--readers: names nobody; give at least one name")
    for name in names:
        if not _NAME.fullmatch(name) or name != name.strip():
            raise ConfigError(
                f"reader {name!r}: use up to 40 letters, digits, spaces, dots, dashes, as in "
                "'anna' (initials or a pseudonym do: it is written into the regions)"
            )
    if repeated := doubles(list(names)):
        raise ConfigError(f"reader named twice: {listed(repeated)}; an adjudicator is a third one")


def read_settings(folder: Path) -> Settings:
    """The settings of a review.

    Raises:
        DataError: there is no review, or a damaged one.
    """
    file = Path(folder) / SETTINGS_FILE
    if not file.is_file():
        raise DataError(f"{folder}: no review there; begin one with `dwarf review serve DATA`")
    content = read_json(file)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise DataError(f"{file}: not of the format {FORMAT}; restore it")
    try:
        return Settings(**{name: as_tuple(value) for name, value in content.items()})
    except TypeError as fault:
        raise DataError(f"{file}: damaged ({fault}); restore it") from None


def write_settings(folder: Path, settings: Settings) -> None:
    """Write review.json."""
    write_json(folder / SETTINGS_FILE, {"format": FORMAT, **dataclasses.asdict(settings)})


def _check_same(settings: Settings, data: PreparedData, folder: Path) -> None:
    if settings.data_fingerprint != data.fingerprint:
        raise DataError(
            f"{folder}: was begun on other data than {data.folder} holds now (fingerprint "
            f"{settings.data_fingerprint[:12]}…, not {data.fingerprint[:12]}…); give the data it "
            "was begun with, or another --review folder"
        )
