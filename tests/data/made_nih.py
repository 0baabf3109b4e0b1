"""A tiny ChestX-ray14 in the official layout: twelve folders, tables and lists, each with its
oddities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.data.made_films import write_film

FOLDERS = 12
FRAME = (1024, 1024)

_COLUMNS = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@dataclass(frozen=True)
class MadeFilm:
    """One film: findings as the label table writes them, boxes as the box list does."""

    patient: int
    follow_up: int = 0
    labels: str = "No Finding"
    boxes: tuple[tuple[str, float, float, float, float], ...] = ()
    """Finding, x, y, width, height in the 1024×1024 frame."""
    size: tuple[int, int] = (64, 64)
    suffix: str = ".png"
    """Of the file; the tables write .png whatever it is."""
    in_list: Literal["train_val", "test"] | None = "train_val"

    @property
    def stem(self) -> str:
        return f"{self.patient:08}_{self.follow_up:03}"


def write_nih(root: Path, films: tuple[MadeFilm, ...], *, year: Literal["2017", "v2020"]) -> Path:
    """Write `films` under `root`, spread over images_001/images to images_012/images in turn."""
    for number in range(FOLDERS):
        (root / f"images_{number + 1:03}" / "images").mkdir(parents=True)
    for position, film in enumerate(films):
        folder = root / f"images_{position * FOLDERS // len(films) + 1:03}" / "images"
        bright = [(x, y, x + width, y + height) for _, x, y, width, height in film.boxes]
        write_film(folder / f"{film.stem}{film.suffix}", film.size, bright, FRAME)
    _write_labels(root, films, year)
    boxes = [
        f"{film.stem}.png,{','.join(map(str, box))},,," for film in films for box in film.boxes
    ]
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes]
    (root / "BBox_List_2017.csv").write_text("\n".join(lines) + "\n")
    for name in ("train_val", "test"):
        listed = [f"{film.stem}.png" for film in films if film.in_list == name]
        # the official lists end without a line end
        (root / f"{name}_list.txt").write_text("\n".join(listed))
    return root


def _write_labels(root: Path, films: tuple[MadeFilm, ...], year: str) -> None:
    older = year == "2017"
    ends, age = (",", "060Y") if older else ("", "60")
    rows = [
        f"{film.stem}.png,{film.labels},{film.follow_up},{film.patient},{age},F,PA,2500,2048,"
        f"0.168,0.168{ends}"
        for film in films
    ]
    name = "Data_Entry_2017.csv" if older else "Data_Entry_2017_v2020.csv"
    text = "\r\n".join([_COLUMNS + ends, *rows]) + "\r\n"
    (root / name).write_text(text, encoding="utf-8", newline="")
