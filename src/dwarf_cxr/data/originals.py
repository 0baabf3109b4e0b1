"""The films that data were prepared from, where they are still what they were."""

from hashlib import sha256
from pathlib import Path

from dwarf_cxr.data.images import Grey, decode_grey, read_content
from dwarf_cxr.data.splits import file_hash
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ImageError


def original_film(data: PreparedData, index: int) -> Grey | None:
    """A film's own file, whole; None if it is gone, cannot be read or is not what was prepared."""
    source = data.sources[index]
    try:
        content = read_content(Path(source))
        if file_hash(sha256(content).hexdigest()) != data.file_hashes[index]:
            return None
        return decode_grey(content, source)
    except ImageError:
        return None
