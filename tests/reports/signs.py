"""Attributes as the tables of the tests write them: "left+ focal- infiltrate?"."""

from dwarf_cxr.reports.attributes import ATTRIBUTES

_POLARITIES = {"+": "present", "-": "absent", "?": "uncertain"}


def from_signs(said):
    """Attributes with what is said of them; a name that is no attribute is an error."""
    found = {word[:-1]: _POLARITIES[word[-1]] for word in said.split()}
    assert set(found) <= set(ATTRIBUTES), said
    return found
