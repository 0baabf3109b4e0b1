"""Progress as a terminal and as a log sees it."""

import os
import pty
import subprocess
import sys

from dwarf_cxr.progress import shown_count

REPORTS = """
from dwarf_cxr.progress import shown_progress
with shown_progress() as report:
    report("training epoch [/b] label loss 0.5", 1, 4)
    report("epoch 1 [/b] of 4", 4, 4)
print("the end")
"""

COUNT = """
from dwarf_cxr.progress import shown_count
with shown_count(None, "Drawing films", "drew {done} of {total} films") as count:
    for done in range(1, 26):
        count(done, 25)
print("the end")
"""


def on_a_terminal(program):
    """What a program shows on a terminal, and its exit status."""
    terminal, child = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(terminal)
    return shown, running.wait(60)


def test_a_terminal_shows_a_bar_before_the_number_of_steps_is_known():
    shown, status = on_a_terminal(REPORTS)
    assert status == 0, shown.decode()
    assert b"the end" in shown
    assert b"4/4" in shown
    assert b"epoch 1 [/b] of 4" in shown


def test_a_log_gets_plain_lines():
    done = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[4/4] epoch 1 [/b] of 4" in done.stderr.splitlines()


def test_a_count_is_a_bar_on_a_terminal():
    shown, status = on_a_terminal(COUNT)
    assert status == 0, shown.decode()
    assert b"Drawing films" in shown
    assert b"100%" in shown
    assert b"the end" in shown
    assert b"drew" not in shown


def test_a_count_is_a_line_for_every_tenth_in_a_log():
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    assert done.stdout == "the end\n"
    assert done.stderr.splitlines() == [
        f"drew {number} of 25 films" for number in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)
    ]


def test_a_count_goes_to_the_one_given(capsys):
    told = []
    with shown_count(lambda *step: told.append(step), "Drawing", "drew {done}") as count:
        count(1, 2)
    assert told == [(1, 2)]
    assert capsys.readouterr().err == ""
