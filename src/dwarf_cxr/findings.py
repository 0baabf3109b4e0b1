"""The shared vocabulary of findings: names, synonyms, subsets of the paper, descriptions."""

from collections.abc import Sequence

from dwarf_cxr.errors import ConfigError

CHESTX_DET_13 = (
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Diffuse Nodule",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Fracture",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumothorax",
)

CHESTX_DET_4 = ("Atelectasis", "Cardiomegaly", "Consolidation", "Effusion")
"""The paper's four-finding version of ChestX-Det (section 3.1)."""

CHESTX_DET_7 = (*CHESTX_DET_4, "Diffuse Nodule", "Emphysema", "Mass")
"""The paper's seven-finding version of ChestX-Det (section 3.1)."""

NIH_14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)

NIH_BOXED_8 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The findings of ChestX-ray14 that its box list covers."""

CHEXPERT_13 = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The findings of CheXpert's tables, whose 14th column is "No Finding"."""

CHEXLOCALIZE_10 = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Support Devices",
)
"""The findings of CheXpert that CheXlocalize outlines."""

CHEXPERT_BOXED_9 = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Fracture",
)
"""The findings of CheXpert that the authors of HAM boxed."""

VOCABULARY = tuple(sorted({*CHESTX_DET_13, *NIH_14, *CHEXPERT_13}))
"""The shared findings: what data/label_maps.yaml translates the names of data sets to."""

DESCRIPTIONS = {
    "Aortic enlargement": "Widened or bulging outline of the aorta",
    "Atelectasis": "Collapse of lung tissue with loss of volume",
    "Calcification": "Dense, bright deposits of calcium",
    "Cardiomegaly": "Enlarged heart, wider than half of the chest",
    "Clavicle fracture": "A break in a clavicle",
    "Consolidation": "Airspaces filled with fluid, pus or blood, hiding the vessels",
    "COPD": "Chronic airway disease with overinflated lungs",
    "COVID-19": "Infection by the coronavirus, often with hazy opacities on both sides",
    "Diffuse Nodule": "Many small round opacities spread over both lungs",
    "Edema": "Fluid in the lung tissue and airspaces on both sides",
    "Effusion": "Excess fluid around the lungs",
    "Emphysema": "Overinflated, dark lungs with flattened diaphragm",
    "Enlarged Cardiomediastinum": "Widened outline of the heart and the middle of the chest",
    "Enlarged PA": "Enlarged pulmonary artery beside the heart",
    "Fibrosis": "Scarring of the lungs with a net of fine lines",
    "Fracture": "A break in a rib or clavicle",
    "Hernia": "Stomach or bowel pushed through the diaphragm into the chest",
    "ILD": "Disease of the tissue between the airspaces, with a net of lines or haze",
    "Infiltration": "Ill-defined opacity spreading in the lung",
    "Lung cavity": "A hollow, air-filled space with a thick wall in the lung",
    "Lung cyst": "A round, air-filled space with a thin wall in the lung",
    "Lung Lesion": "A mass or nodule in the lung",
    "Lung Opacity": "Any area of the lung that is whiter than it should be",
    "Lung tumor": "A growth in the lung, suspected to be cancer",
    "Mass": "A round opacity in the lung larger than three centimetres",
    "Mediastinal shift": "Heart and windpipe pushed or pulled to one side",
    "Nodule": "A round opacity in the lung smaller than three centimetres",
    "Nodule/Mass": "A round opacity in the lung of any size",
    "Other diseases": "A disease of the chest that no other name stands for",
    "Other lesion": "A visible abnormality that no other name stands for",
    "Pleural Other": "A disease of the lung's lining other than fluid around the lungs",
    "Pleural Thickening": "Thickened lining along the edge of the lung",
    "Pneumonia": "Infection filling part of the lung with opacity",
    "Pneumothorax": "Air around a collapsed lung, without vessel markings",
    "Rib fracture": "A break in a rib",
    "Support Devices": "Tubes, lines, wires, pacemakers and other devices",
    "Tuberculosis": "Chronic infection with opacities or cavities, often in the upper lungs",
}
"""What each finding is, in a sentence: the alternative to asking by its name.

There is one for every finding that a reader of a public set can give, under the reader's name."""

SYNONYMS = {
    "Infiltrate": "Infiltration",
    "Pleural_Thickening": "Pleural Thickening",
    "Pleural thickening": "Pleural Thickening",
    "Pleural Effusion": "Effusion",
    "Pleural effusion": "Effusion",
    "Pulmonary fibrosis": "Fibrosis",
}
"""Other spellings that data sets use for a name of the vocabulary."""


def select(wanted: Sequence[str], available: Sequence[str], *, where: str) -> tuple[str, ...]:
    """`wanted` in its own order, each checked to be among `available`.

    Raises:
        ConfigError: a name is unknown or given twice; lists the unknown and the available names.
    """
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise ConfigError(
            f"{where}: unknown finding {', '.join(map(repr, unknown))}; "
            f"available: {', '.join(available)}"
        )
    if len(set(wanted)) != len(wanted):
        raise ConfigError(f"{where}: a finding is given twice in {', '.join(wanted)}")
    if not wanted:
        raise ConfigError(f"{where}: no finding is given; available: {', '.join(available)}")
    return tuple(wanted)
