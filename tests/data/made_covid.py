"""A tiny COVID-19 image data collection in the official layout."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tests.data.made_films import write_film

HEADER = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,"
    "went_icu,in_icu,needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,"
    "neutrophil_count,lymphocyte_count,view,modality,date,location,folder,filename,doi,url,license,"
    "clinical_notes,other_notes,"
)
"""Of the official table, which ends with a column without a name."""


@dataclass(frozen=True)
class MadeImage:
    """One image: fields as the table writes them."""

    name: str
    patient: str = "2"
    finding: str = "Pneumonia/Viral/COVID-19"
    view: str = "PA"
    modality: str = "X-ray"
    notes: str = ""
    licence: str = "CC BY-NC-SA"
    suffix: str = ".png"


def write_covid(root: Path, images: tuple[MadeImage, ...]) -> Path:
    """Write metadata.csv and the images; a CT is a volume whose file is not written."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER.split(","), restval="", lineterminator="\n")
        writer.writeheader()
        for one in images:
            radiograph = one.modality == "X-ray"
            if radiograph:
                write_film(root / "images" / f"{one.name}{one.suffix}", (30, 24))
            writer.writerow(
                {
                    "patientid": one.patient,
                    "offset": "3",
                    "finding": one.finding,
                    "view": one.view,
                    "modality": one.modality,
                    "location": "Changhua Christian Hospital, Taiwan ",
                    "folder": "images" if radiograph else "volumes",
                    "filename": f"{one.name}{one.suffix if radiograph else '.nii.gz'}",
                    "license": one.licence,
                    "clinical_notes": one.notes,
                }
            )
    return root
