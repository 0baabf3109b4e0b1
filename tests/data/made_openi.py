"""A tiny Indiana University collection in the official layout: archive, images, DICOM table."""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tests.data.made_films import write_film


@dataclass(frozen=True)
class MadeReport:
    """One report; its films by the end of their names, with what the DICOM table calls them."""

    number: int
    findings: str = ""
    impression: str = ""
    terms: tuple[str, ...] = ()
    automatic: tuple[str, ...] = ()
    films: tuple[tuple[str, str], ...] = (("IM-0001-1001", "PA"), ("IM-0001-2001", "LL"))
    repeats_number: bool = False
    """Whether films are called CXR1_1_IM… instead of CXR1_IM…, as those of the first report."""

    @property
    def uid(self) -> str:
        return f"CXR{self.number}"

    def image_id(self, film: str) -> str:
        return f"{self.uid}_{f'{self.number}_' if self.repeats_number else ''}{film}"


def to_xml(report: MadeReport) -> str:
    """The report as its file writes it, with the parts that matter here."""
    sections = {
        "COMPARISON": "None.",
        "INDICATION": "Pneumothorax?",
        "FINDINGS": report.findings,
        "IMPRESSION": report.impression,
    }
    texts = "\n\n".join(
        f'            <AbstractText Label="{label}">{escape(text)}</AbstractText>'
        if text
        else f'            <AbstractText Label="{label}"/>'
        for label, text in sections.items()
    )
    terms = "\n".join(
        [f"      <major>{escape(term)}</major>" for term in report.terms]
        + [f"      <automatic>{escape(term)}</automatic>" for term in report.automatic]
    )
    films = "\n".join(
        f"""   <parentImage id="{report.image_id(film)}">
      <figureId>F{place}</figureId>
      <caption>Xray Chest PA and Lateral</caption>
      <panel type="single">
         <url>/hadoop/storage/radiology/extract/{report.image_id(film)}.jpg</url>
      </panel>
   </parentImage>"""
        for place, (film, _) in enumerate(report.films, start=1)
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="{report.uid}"/>
   <licenseType>open-access</licenseType>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
{texts}
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
{terms}
   </MeSH>
{films}
</eCitation>"""


def write_openi(root: Path, reports: tuple[MadeReport, ...], *, packed: bool = True) -> Path:
    """Write reports (as archive or unpacked), films and the DICOM table under `root`."""
    documents = {f"ecgen-radiology/{one.number}.xml": to_xml(one).encode() for one in reports}
    root.mkdir(parents=True, exist_ok=True)
    if packed:
        write_archive(root / "NLMCXR_reports.tgz", documents)
    else:
        for name, content in documents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    rows = []
    for one in reports:
        for film, position in one.films:
            write_film(root / "NLMCXR_png" / f"{one.image_id(film)}.png", (30, 24))
            name = f"{one.number}_{film}"
            orientation = "\"['L', 'F']\""
            rows.append(f"CXR{name},CR,{one.number},{orientation},{position},./{name}.dcm,,1")
    header = "imageid,Modality,Patient ID,Patient Orientation,View Position,filename,,Trim"
    table = "\n".join([header, *rows]) + "\n"
    (root / "nlmcxr_dicom_metadata.csv.gz").write_bytes(gzip.compress(table.encode()))
    return root


def write_archive(path: Path, documents: dict[str, bytes]) -> None:
    """A .tgz with a folder entry first, as the official one has it."""
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("ecgen-radiology/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in documents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
