"""NIH ChestX-ray14.

- 112,120 frontal radiographs (1024×1024 PNG) of 30,805 patients in twelve archives, which unpack
  to `images_001/images` to `images_012/images`; 14 findings mined from reports ("No Finding" = none
  of the 14, so every finding is assessed on every image).
- `Data_Entry_2017_v2020.csv`, or else the older `Data_Entry_2017.csv`: labels and patients. Two
  of its column names hold a comma without quotes, `OriginalImage[Width,Height]` and
  `OriginalImagePixelSpacing[x,y]`, and so are four columns; the older table ends every line with
  one more comma. Width and height are those of the original DICOM, not of the PNG. Neither they nor
  age, sex, view and follow-up are used.
- `BBox_List_2017.csv`: 984 boxes of 8 findings on 880 images, drawn by a radiologist, as
  x, y, width, height in the 1024×1024 frame. Not exhaustive: a positive without a box is
  somewhere, not nowhere. It writes "Infiltrate" where the labels write "Infiltration", and its
  column `Bbox [x,y,w,h],,,` is four columns, of odd names.
- `train_val_list.txt` (86,524 images) and `test_list.txt` (25,596): the official lists, without a
  line end after their last line, so that line counters say one less. The test list holds nearly
  all boxes, which leaves no region to train with: the lists are used when asked for; otherwise
  splits are made, or given.
- RSNA's radiologists read some of the images for Lung Opacity (`data/rsna.py`).
- Licence: none; the NIH asks to be acknowledged and the paper to be cited.
- Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
  Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from dwarf_cxr.data import rsna
from dwarf_cxr.data.images import find_images, image_stem, left_out, only_image
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.rows import Row, Table, doubles, listed, only_file, read_table
from dwarf_cxr.errors import DataError
from dwarf_cxr.findings import NIH_14

LABEL_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_TABLE = "BBox_List_2017.csv"
SPLIT_LISTS: Mapping[str, str] = {"train": "train_val_list.txt", "test": "test_list.txt"}
"""The official lists of image names; validation images are taken from the first by patient."""
FRAME = (1024, 1024)

NAMES: Mapping[str, str] = {
    **{name: name for name in NIH_14 if name != "Pleural Thickening"},
    "Infiltrate": "Infiltration",
    "Pleural_Thickening": "Pleural Thickening",
}
"""The tables' names of the findings; any other is an error."""


def read_nih(
    root: Path,
    *,
    missing: Literal["error", "skip"] = "error",
    official_splits: bool = False,
    lung_opacity: bool = False,
) -> SourceSet:
    """Read ChestX-ray14, or a part of it, from the official tables and images under `root`.

    Images may be PNG or JPEG of any size in any subfolder; they are found by the stem of their
    name. `missing` says what becomes of rows without an image: an error, or left out with a note.
    `official_splits` takes the splits of the official lists; an image that neither of them names is
    left out. `lung_opacity` adds the finding of RSNA's radiologists, who read some of these images,
    from its tables by NIH file name; on the others it was not assessed. A box on a finding that the
    labels call absent is kept, and counted in the notes.

    Raises:
        DataError: a table, list or image is missing, a row cannot be understood; names file and
            row.
    """
    root = Path(root)
    table = read_table(_find_table(root), required=("Image Index", "Finding Labels", "Patient ID"))
    labels = _read_labels(table)
    boxes, notes = _read_boxes(root, labels)
    opacities = rsna.read_nih_opacities(root) if lung_opacity else None
    splits = _read_official_splits(root) if official_splits else {}
    if official_splits:
        unlisted = [name for name in labels if image_stem(name) not in splits]
        if unlisted:
            notes.append(
                f"{len(unlisted)} of {len(labels)} images are in neither of the official lists; "
                f"left out: {listed(unlisted)}"
            )
        labels = {name: row for name, row in labels.items() if image_stem(name) in splits}
        if not labels:
            raise DataError(
                f"{root}: the official lists name none of the images of {table.path.name}; "
                f"fetch the lists again"
            )
    images = find_images(root)
    absent = [name for name in labels if image_stem(name) not in images]
    notes += left_out(absent, len(labels), f"images of {table.path.name}", root, missing)
    radiographs = []
    for name, (row, present) in labels.items():
        path = only_image(image_stem(name), images)
        if path is None:
            continue
        assessed = {finding: finding in present for finding in NIH_14}
        regions = tuple(boxes.get(image_stem(name), ()))
        if opacities is not None:
            if image_stem(name) in opacities.labels:
                assessed[rsna.FINDING] = opacities.labels[image_stem(name)]
            regions += opacities.regions.get(image_stem(name), ())
        radiographs.append(
            Radiograph(
                image_id=image_stem(name),
                patient_id=row.fields["Patient ID"],
                path=path,
                labels=assessed,
                regions=regions,
                region_frame=FRAME,
                split=splits.get(image_stem(name)),
            )
        )
    if opacities is not None:
        notes += _opacity_notes(opacities, radiographs)
    if official_splits:
        notes.append(_boxes_by_split(radiographs))
    contradicted = sum(
        not radiograph.labels[region.finding]
        for radiograph in radiographs
        for region in radiograph.regions
    )
    if contradicted:
        notes.append(f"{contradicted} boxes lie on findings that the labels call absent; kept")
    return SourceSet(
        name="NIH ChestX-ray14",
        findings=NIH_14 if opacities is None else (*NIH_14, rsna.FINDING),
        radiographs=tuple(radiographs),
        source="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        licence="No restrictions; acknowledge the NIH Clinical Center"
        + ("" if opacities is None else f"; {rsna.FINDING}: {rsna.LICENCE}"),
        citation=(
            "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest "
            "X-ray Database and Benchmarks on Weakly-Supervised Classification and Localization "
            "of Common Thorax Diseases. CVPR 2017."
            + ("" if opacities is None else f" {rsna.CITATION}")
        ),
        notes=tuple(notes),
    )


def _opacity_notes(opacities: rsna.Opacities, radiographs: Sequence[Radiograph]) -> list[str]:
    read = [one.labels[rsna.FINDING] for one in radiographs if rsna.FINDING in one.labels]
    return [
        *opacities.notes,
        f"{rsna.FINDING} was assessed by RSNA's radiologists on {len(read)} of {len(radiographs)} "
        f"images and seen on {sum(read)}; it was not assessed on the others",
    ]


def _find_table(root: Path) -> Path:
    found = only_file(root, *LABEL_TABLES)
    if found is None:
        raise DataError(
            f"{root}: holds neither {' nor '.join(LABEL_TABLES)}; give the folder of the official "
            f"download as --root"
        )
    return found


def _read_labels(table: Table) -> dict[str, tuple[Row, frozenset[str]]]:
    labels: dict[str, tuple[Row, frozenset[str]]] = {}
    faults = []
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        name, written = row.fields["Image Index"], row.fields["Finding Labels"].split("|")
        present = [] if written == ["No Finding"] else written
        unknown = [finding for finding in present if finding not in NAMES]
        if not name or not row.fields["Patient ID"]:
            faults.append(f"{where}: no image name or no patient id; fill them in")
        elif name in labels:
            faults.append(f"{where}: image {name} is listed twice; drop one of the rows")
        elif unknown:
            faults.append(
                f"{where}: unknown finding {', '.join(map(repr, unknown))} in 'Finding Labels'; "
                f"known: {', '.join(NAMES)}, or 'No Finding' alone"
            )
        else:
            labels[name] = row, frozenset(NAMES[finding] for finding in present)
    if faults:
        raise DataError("\n".join(faults))
    if not labels:
        raise DataError(f"{table.path}: lists no image")
    return labels


def _read_boxes(
    root: Path, labels: Mapping[str, tuple[Row, frozenset[str]]]
) -> tuple[dict[str, list[Region]], list[str]]:
    """Boxes by image stem, and notes."""
    path = only_file(root, BOX_TABLE)
    if path is None:
        return {}, [f"no {BOX_TABLE} under {root}: no finding has a region"]
    # The header reads `Bbox [x,y,w,h],,,`: its commas make four columns with these odd names.
    columns = ("Bbox [x", "y", "w", "h]")
    table = read_table(path, required=("Image Index", "Finding Label", *columns))
    known = {image_stem(name) for name in labels}
    boxes: dict[str, list[Region]] = {}
    faults, others = [], 0
    for row in table.rows:
        where = f"{table.path}, line {row.line}"
        stem, written = image_stem(row.fields["Image Index"]), row.fields["Finding Label"]
        try:
            x, y, width, height = (float(row.fields[column]) for column in columns)
        except ValueError:
            faults.append(f"{where}: x, y, w, h must be numbers; correct the row")
            continue
        if written not in NAMES:
            faults.append(f"{where}: unknown finding {written!r}; known: {', '.join(NAMES)}")
        elif not (width > 0 and height > 0):
            faults.append(f"{where}: box of {width}×{height} has no area; correct or drop the row")
        elif stem in known:
            box = Box(x, y, x + width, y + height)
            boxes.setdefault(stem, []).append(Region(NAMES[written], box, "NIH radiologist"))
        else:
            others += 1
    if faults:
        raise DataError("\n".join(faults))
    return boxes, [f"{others} boxes are of images that the labels do not list"] if others else []


def _read_official_splits(root: Path) -> dict[str, str]:
    """The official split of every listed image, by image stem."""
    splits: dict[str, str] = {}
    faults = []
    for split, name in SPLIT_LISTS.items():
        path = only_file(root, name)
        if path is None:
            faults.append(f"{root}: holds no {name}, which the official splits need; put it there")
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            faults.append(f"{path}: cannot be read ({fault}); fetch it again")
            continue
        stems = [image_stem(line.strip()) for line in lines if line.strip()]
        twice = doubles(stems)
        if twice:
            faults.append(f"{path}: listed twice: {listed(twice)}; fetch it again")
        both = [stem for stem in stems if splits.get(stem, split) != split]
        if both:
            faults.append(f"{path}: also in {SPLIT_LISTS['train']}: {listed(both)}; keep one")
        splits |= dict.fromkeys(stems, split)
    if faults:
        raise DataError("\n".join(faults))
    return splits


def _boxes_by_split(radiographs: Sequence[Radiograph]) -> str:
    """The note on how few of the boxes the official lists leave to train with."""
    boxed = [one.split for one in radiographs if one.regions]
    return (
        f"official splits: {boxed.count('test')} of {len(boxed)} images with boxes are in the test "
        f"list and {boxed.count('train')} in the training list; without boxes there, regions "
        f"cannot train"
    )
