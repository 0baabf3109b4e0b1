"""A review out to Label Studio: tasks in its JSON, and the labelling interface that they need.

Formats: https://labelstud.io/guide/export (JSON), https://labelstud.io/tags (one result each of
`rectanglelabels`, `polygonlabels`, `brushlabels`, `choices`), as label-studio-sdk 2.1.2 reads them.
Places are percent of the image's sides. A brush mask is packed as Label Studio's own run lengths of
the RGBA picture, bit by bit (`label_studio_sdk.converter.brush`, after thi.ng/rle-pack).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from dwarf_cxr.data.geometry import Frame, decode_mask
from dwarf_cxr.data.records import Box, Finding, Polygon, Shape
from dwarf_cxr.files import write_json, write_text
from dwarf_cxr.review.agreement import Decision
from dwarf_cxr.review.folder import Review
from dwarf_cxr.review.image_names import film_file_name, original_file_name

WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)
"""How many bits a run's length may take; a run names which."""
OPAQUE = 255
IMAGE = "image"
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files under LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""


def export_label_studio(
    review: Review,
    decided: Mapping[tuple[int, Finding], Decision],
    out: Path,
    *,
    images: str | None = None,
) -> int:
    """Write the assessed films as tasks, and beside them the interface; how many regions that is.

    The interface is `out` with the ending .xml.

    Args:
        images: the folder beside `out` of films that were written, named by `film_file_name`:
            tasks then find them where Label Studio serves local files from the folder of `out`.
            Without it films go by their originals' names, to be completed.
    """
    tasks: list[dict[str, Any]] = []
    regions = 0
    for film in sorted({film for film, _ in decided}):
        frame = review.frame(film)
        results: list[dict[str, Any]] = []
        for finding in review.settings.findings:
            decision = decided.get((film, finding))
            if decision is None:
                continue
            if decision.verdict is not None:
                results.append(
                    {
                        "from_name": _choices_name(finding, review.settings.findings),
                        "to_name": IMAGE,
                        "type": "choices",
                        "value": {"choices": [decision.verdict]},
                    }
                )
            for annotator, region in decision.regions:
                results.append(_result(region.shape, finding, frame, annotator))
                regions += 1
        numbered = [{"id": f"{film}-{number}", **one} for number, one in enumerate(results)]
        tasks.append(
            {
                "id": len(tasks) + 1,
                "data": {
                    IMAGE: original_file_name(review, film)
                    if images is None
                    else LOCAL_FILES + quote(f"{images}/{film_file_name(film)}"),
                    "image_id": review.data.image_ids[film],
                },
                "annotations": [{"id": len(tasks) + 1, "was_cancelled": False, "result": numbered}],
                "predictions": [],
            }
        )
    write_text(out.with_suffix(".xml"), interface(review.settings.findings))
    write_json(out, tasks)
    return regions


def interface(findings: Sequence[Finding]) -> str:
    """The labelling interface for `findings`, in Label Studio's tags."""
    lines = ["<View>", f'  <Image name="{IMAGE}" value="$image" zoom="true"/>']
    for tag, name in (
        ("RectangleLabels", "box"),
        ("PolygonLabels", "polygon"),
        ("BrushLabels", "mask"),
    ):
        lines.append(f'  <{tag} name="{name}" toName="{IMAGE}">')
        lines += [f"    <Label value={quoteattr(finding)}/>" for finding in findings]
        lines.append(f"  </{tag}>")
    for finding in findings:
        name = _choices_name(finding, findings)
        lines.append(f"  <Header value={quoteattr(finding)}/>")
        lines.append(f'  <Choices name="{name}" toName="{IMAGE}" choice="single">')
        lines += [f'    <Choice value="{one}"/>' for one in ("present", "absent", "unsure")]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])


def _choices_name(finding: Finding, findings: Sequence[Finding]) -> str:
    return f"finding-{findings.index(finding) + 1}"


def _result(shape: Shape, finding: Finding, frame: Frame, annotator: str) -> dict[str, Any]:
    width, height = frame
    common = {
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "meta": {"text": [f"annotator: {annotator}"]},
    }
    if isinstance(shape, Box):
        value: dict[str, Any] = {
            "x": 100 * shape.x1 / width,
            "y": 100 * shape.y1 / height,
            "width": 100 * (shape.x2 - shape.x1) / width,
            "height": 100 * (shape.y2 - shape.y1) / height,
            "rotation": 0,
            "rectanglelabels": [finding],
        }
        return {"from_name": "box", "type": "rectanglelabels", **common, "value": value}
    if isinstance(shape, Polygon):
        value = {
            "points": (shape.points * 100 / np.array(frame)).tolist(),
            "closed": True,
            "polygonlabels": [finding],
        }
        return {"from_name": "polygon", "type": "polygonlabels", **common, "value": value}
    value = {"format": "rle", "rle": pack_mask(decode_mask(shape)), "brushlabels": [finding]}
    return {"from_name": "mask", "type": "brushlabels", **common, "value": value}


def pack_mask(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """A mask as Label Studio's brush has it: bytes of the packed RGBA picture, row by row.

    A header of 32 bits for the number of values, 5 for the bits of a value less one, 4 for each of
    `RUN_BITS` less one; then for every run a 1, two bits that name how many bits its length takes,
    the length less one, and the value.
    """
    values = np.repeat(mask.ravel(), 4)
    changes = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate(([0], changes))
    lengths = np.diff(np.concatenate((starts, [values.size])))
    bits = [f"{values.size:032b}", f"{WORD_BITS - 1:05b}", *(f"{one - 1:04b}" for one in RUN_BITS)]
    longest = 1 << RUN_BITS[-1]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{OPAQUE if values[start] else 0:0{WORD_BITS}b}"
        while length > 0:
            part = min(length, longest)
            size = next(at for at, one in enumerate(RUN_BITS) if part <= 1 << one)
            bits.append(f"1{size:02b}{part - 1:0{RUN_BITS[size]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
