"""One family of errors; each names the thing, the value found and the remedy."""


class DwarfError(Exception):
    """Something the user can mend; the command line prints it without a traceback."""


class ImageError(DwarfError):
    """An image file cannot be read, or must not be."""


class DataError(DwarfError):
    """A table, label, region or split of a data set is wrong."""


class ConfigError(DwarfError):
    """A setting is unknown, contradictory or out of range."""


class CheckpointError(DwarfError):
    """A model or training state is missing, damaged or does not fit."""


class TrainingError(DwarfError):
    """A training cannot go on."""
