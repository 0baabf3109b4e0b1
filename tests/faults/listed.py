"""All 49 faults, in order."""

from tests.faults import dicom, images, labels, training, web

FAULTS = (
    *images.FAULTS,
    *dicom.FAULTS,
    *labels.FAULTS,
    *training.FAULTS,
    *web.FAULTS,
)
