"""Faults 42 to 49: the clinicians' pages, by the tests that provoke them over HTTP."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from tests.faults.fault import Fault, need

ROOT = Path(__file__).parents[2]


def by_tests(*tests: str) -> "ByTests":
    """What provokes a fault by tests, each given as FILE::NAME under tests/."""
    return ByTests(tests)


class ByTests:
    """Runs tests in a process of their own: met when all of them are there and pass."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.tests = tests

    def __call__(self, place: Path) -> str:
        """Run them; returns how many passed."""
        need(self.tests, "no test provokes it yet")
        absent = [test for test in self.tests if not is_there(test)]
        need(not absent, f"no such test: {', '.join(absent)}")
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            words = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *words, *(f"tests/{test}" for test in self.tests)],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            need(report.exists(), done.stdout[-300:])
            suite = next(ElementTree.parse(report).iter("testsuite"))
        count, bad = int(suite.get("tests", 0)), done.stdout.strip().splitlines()[-1:]
        need(done.returncode == 0 and suite.get("skipped") == "0", f"{bad}")
        return f"{count} tests passed: {', '.join(test.split('::')[1] for test in self.tests)}"


def is_there(test: str) -> bool:
    """Whether the file has a test of that name."""
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return path.is_file() and f"def {name}(" in path.read_text(encoding="utf-8")


FAULTS = (
    Fault(
        42,
        "double submit",
        "one row",
        by_tests(
            "web/test_study.py::test_double_submit_is_one_row",
            "review/test_pages.py::test_a_double_submit_is_one_row",
        ),
    ),
    Fault(
        43,
        "eight readers at once",
        "none lost",
        by_tests(
            "web/test_store.py::test_eight_writers_that_read_first_lose_nothing",
            "review/test_pages.py::test_eight_readers_at_once",
        ),
    ),
    Fault(
        44,
        "path traversal, raw and encoded",
        "leads nowhere",
        by_tests(
            "web/test_application.py::test_paths_lead_nowhere_else",
            "web/test_study.py::test_paths_lead_nowhere_else",
            "review/test_pages.py::test_no_path_leads_out",
        ),
    ),
    Fault(
        45,
        "missing CSRF token",
        "403, nothing written",
        by_tests(
            "web/test_application.py::test_change_needs_the_token_of_its_page",
            "web/test_study.py::test_answer_without_the_page_s_token",
            "review/test_pages.py::test_without_the_token_nothing_is_changed",
        ),
    ),
    Fault(
        46,
        "oversize or unbounded field",
        "413, nothing written",
        by_tests(
            "web/test_application.py::test_too_much",
            "web/test_application.py::"
            "test_too_much_without_a_length_is_read_no_further_than_the_limit",
            "review/test_pages.py::test_oversize_is_refused",
        ),
    ),
    Fault(
        47,
        "a model's name leaks",
        "in no byte of any response",
        by_tests(
            "web/test_study.py::test_no_byte_tells_whose_map_it_is",
            "web/test_study.py::test_pictures_hold_no_more_than_pixels",
        ),
    ),
    Fault(
        48,
        "back button, expired session",
        "answer kept",
        by_tests(
            "web/test_study_browser.py::test_back_button_and_changed_answers",
            "web/test_study.py::test_expired_session_loses_nothing",
        ),
    ),
    Fault(
        49,
        "HTML in comments, formulas in CSV",
        "shown as text; no cell is a formula",
        by_tests(
            "web/test_study.py::test_comments_are_text",
            "review/test_pages.py::test_html_in_comments_and_names_stays_text",
            "study/test_report.py::test_no_cell_is_a_formula",
        ),
    ),
)
