"""Coded concepts for findings: what DICOM objects call each finding of the vocabulary.

Only codes that were checked stand here: those of DICOM's own context groups (chest findings, CID
6102; segmentation property types) and SNOMED CT's disorders. `pydicom`'s dictionary of names is
not to be trusted blindly: its "Cardiomegaly" is the code of an enlarged septal foramen. Any other
finding, and those of whose code we are not sure (Pleural Thickening, and CheXpert's groups such as
Lung Opacity), gets a code of our own scheme that follows from its name, with the name as meaning.
"""

from hashlib import sha256
from typing import NamedTuple

SNOMED, DICOM, OURS = "SCT", "DCM", "99DWARF"


class Concept(NamedTuple):
    """A coded concept: value, the designator of its scheme, meaning."""

    value: str
    scheme: str
    meaning: str


FINDINGS = {
    "Atelectasis": Concept("46621007", SNOMED, "Atelectasis"),
    "Calcification": Concept("18115005", SNOMED, "Pathologic calcification"),
    "Cardiomegaly": Concept("8186001", SNOMED, "Cardiomegaly"),
    "Consolidation": Concept("95436008", SNOMED, "Lung consolidation"),
    "Diffuse Nodule": Concept("112067", DICOM, "Nodular pattern"),
    "Edema": Concept("19242006", SNOMED, "Pulmonary edema"),
    "Effusion": Concept("60046008", SNOMED, "Pleural effusion"),
    "Emphysema": Concept("87433001", SNOMED, "Pulmonary emphysema"),
    "Fibrosis": Concept("51615001", SNOMED, "Pulmonary fibrosis"),
    "Fracture": Concept("125605004", SNOMED, "Fracture of bone"),
    "Hernia": Concept("39839004", SNOMED, "Diaphragmatic hernia"),
    "Infiltration": Concept("112121", DICOM, "Infiltrate"),
    "Mass": Concept("4147007", SNOMED, "Mass"),
    "Nodule": Concept("27925004", SNOMED, "Nodule"),
    "Pneumonia": Concept("233604007", SNOMED, "Pneumonia"),
    "Pneumothorax": Concept("36118008", SNOMED, "Pneumothorax"),
}
"""By the vocabulary's names (`dwarf_cxr.findings`)."""

ABNORMAL_STRUCTURE = Concept("49755003", SNOMED, "Morphologically Abnormal Structure")
CHEST_RADIOGRAPHY = Concept("399208008", SNOMED, "Plain X-ray of chest")
CERTAINTY = Concept("111012", DICOM, "Certainty of Finding")
"""In percent; by its definition 0 is no certainty and 100 is certainty."""
THRESHOLD = Concept("122411", DICOM, "Threshold Value")
PRESENCE = Concept("121052", DICOM, "Presence of property")
PRESENT = Concept("121053", DICOM, "Present")
ABSENT = Concept("121054", DICOM, "Absent")
UNDETERMINED = Concept("121059", DICOM, "Presence Undetermined")
HIGHEST_MAP_VALUE = Concept("MAP-MAXIMUM", OURS, "Highest value of the map in the region")
SOURCE_IMAGE = Concept("121322", DICOM, "Source Image for Image Processing Operation")
PERCENT = Concept("%", "UCUM", "Percent")

LONG_STRING = 64
"""Characters that DICOM's LO holds."""


def concept_of(finding: str) -> Concept:
    """The coded concept of a finding; one of our own scheme for a name that is not in the table.

    The same name always gets the same value, of at most 16 characters.
    """
    known = FINDINGS.get(finding)
    if known is not None:
        return known
    value = f"F-{sha256(finding.encode()).hexdigest()[:12].upper()}"
    return Concept(value, OURS, long_string(finding))


def long_string(words: str) -> str:
    """`words` as DICOM's LO takes them: 64 characters, no backslash, no control characters."""
    allowed = "".join(letter if letter.isprintable() else " " for letter in words)
    return allowed.replace("\\", "/").strip()[:LONG_STRING].strip() or "unnamed"
