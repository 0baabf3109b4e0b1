"""Results for other systems: DICOM objects."""
