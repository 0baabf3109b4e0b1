"""Progress as a terminal and as a log sees it."""

import os
import pty
import subprocess
import sys

REPORTS = """
from dwarf_cxr.progress import shown_progress
with shown_progress() as report:
    report("training [/b] label loss 0.5", 1, 4)
    report("epoch 1 [/b] of 4", 4, 4)
print("the end")
"""


def test_a_terminal_shows_a_bar_before_the_number_of_steps_is_known():
    terminal, child = pty.openpty()
    command = [sys.executable, "-c", REPORTS]
    running = subprocess.Popen(command, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(terminal)
    assert running.wait(60) == 0, shown.decode()
    assert b"the end" in shown
    assert b"4/4" in shown
    assert b"epoch 1 [/b] of 4" in shown


def test_a_log_gets_plain_lines():
    done = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[4/4] epoch 1 [/b] of 4" in done.stderr.splitlines()
