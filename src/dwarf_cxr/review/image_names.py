"""What a film's picture is called in a file for other programs."""

import os
from pathlib import Path

from dwarf_cxr.review.folder import Review


def film_file_name(film: int) -> str:
    """Of a picture that is written: by the number that the film has on the pages."""
    return f"{film + 1:06d}.png"


def original_folder(review: Review) -> Path:
    """The folder that all original films of the data lie under."""
    return Path(os.path.commonpath([Path(source).parent for source in review.data.sources]))


def original_file_name(review: Review, film: int) -> str:
    """The original's, from `original_folder` on: names alone repeat themselves in some data."""
    return Path(review.data.sources[film]).relative_to(original_folder(review)).as_posix()
