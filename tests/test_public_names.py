"""`import dwarf_cxr` is instant and offers the names that the documents use."""

import subprocess
import sys

import pytest

import dwarf_cxr


@pytest.mark.parametrize("name", dwarf_cxr.__all__)
def test_every_public_name_loads(name):
    assert callable(getattr(dwarf_cxr, name))


def test_a_name_is_not_hidden_by_a_module_of_the_same_name():
    code = (
        "import dwarf_cxr, dwarf_cxr.prediction, dwarf_cxr.cli; "
        "print(all(callable(getattr(dwarf_cxr, name)) for name in dwarf_cxr.__all__))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dwarf_cxr.nothing  # noqa: B018
