import pytest

from tests.faults.listed import FAULTS
from tests.faults.web import ByTests

HERE = [fault for fault in FAULTS if not isinstance(fault.provoke, ByTests)]
"""The others are tests of their own."""


def test_there_are_49():
    assert [fault.number for fault in FAULTS] == list(range(1, 50))


@pytest.mark.parametrize("fault", HERE, ids=lambda fault: str(fault.number))
def test_fault_is_survived(fault, tmp_path):
    assert fault.provoke(tmp_path)
