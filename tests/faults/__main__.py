"""`python -m tests.faults` provokes all 49 faults; a table of what was expected and what came.

Exit status 1 if any is not met.
"""

import sys
import tempfile
from pathlib import Path

from tests.faults.fault import SHOWN, Fault, NotMetError, shortened
from tests.faults.listed import FAULTS


def outcome_of(fault: Fault) -> tuple[bool, str]:
    """Whether a fault ends as it must, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        try:
            return True, fault.provoke(Path(folder))
        except NotMetError as wrong:
            return False, f"NOT MET: {shortened(str(wrong))}"
        except Exception as wrong:  # the next fault is provoked all the same
            return False, f"NOT MET: {type(wrong).__name__}: {shortened(str(wrong))}"


def main() -> int:
    """Print the table; its last line is how many faults are met."""
    row = "{:>2}  {:<35}  {:<43}  {}"
    print(row.format("", "fault", "expected", "got"))
    met = 0
    for fault in FAULTS:
        good, got = outcome_of(fault)
        met += good
        print(row.format(fault.number, fault.name, fault.expected, got[:SHOWN]), flush=True)
    print(f"{met} of {len(FAULTS)} faults met")
    return int(met < len(FAULTS))


if __name__ == "__main__":
    sys.exit(main())
