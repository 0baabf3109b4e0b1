"""The command line through its real door: exit statuses, messages and speed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dwarf_cxr import __version__
from dwarf_cxr.cli import app

COMMANDS = (
    "methods",
    "teachers",
    "train",
    "pretrain",
    "evaluate",
    "compare",
    "reproduce",
    "predict",
    "demo",
    "data",
    "export",
    "weights",
    "study",
)


def dwarf(*words: str | Path | int) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "dwarf_cxr.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize(
    "command",
    [["data", "prepare"], ["teachers"], ["train"], ["pretrain"], ["evaluate"], ["compare"]],
)
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "--" in result.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys, dwarf_cxr.cli; "
        "heavy = {'torch', 'numpy', 'cv2', 'matplotlib', 'transformers', 'scipy', 'monai'} "
        "| {'fastapi', 'sqlmodel', 'uvicorn'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_is_instant():
    def seconds(*command: str) -> float:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    python = seconds(sys.executable, "-c", "pass")
    help_ = seconds(sys.executable, "-m", "dwarf_cxr.cli", "--help")
    # 0.3 s is the promise on an idle machine; tests run beside each other
    assert help_ - python < 0.9


def test_version():
    assert dwarf("--version").stdout.strip() == f"dwarf-cxr {__version__}"


def test_wrong_usage_exits_with_2():
    assert dwarf("train").returncode == 2
    assert dwarf("data", "prepare", "no-such-format", "--out", "x").returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "prepare", "nih", "--out", "OUT"], "--root"),
        (["data", "prepare", "nih", "--root", "OUT/none", "--out", "OUT/d"], "no such folder"),
        (["train", "dwarf", "--data", "OUT/none", "--out", "OUT/r"], "dataset.json is missing"),
        (["train", "dwarv", "--data", "OUT/none", "--out", "OUT/r"], "unknown method 'dwarv'"),
        (["teachers", "--data", "OUT/none", "--out", "OUT/t"], "dataset.json is missing"),
        (["teachers", "--data", "OUT/none", "--out", "OUT/t", "--size", "9"], "size 9: choose"),
        (["evaluate", "OUT/none", "--data", "OUT/none"], "no model there"),
    ],
)
def test_a_failure_is_one_line_with_status_1(words, said, tmp_path):
    result = dwarf(*(word.replace("OUT", str(tmp_path)) for word in words))
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(tmp_path):
    result = dwarf("--debug", "evaluate", tmp_path, "--data", tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_prepare_check_and_show_a_users_own_table(tmp_path):
    rng = np.random.default_rng(11)
    lines = ["path,patient_id,Mass,Edema"]
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), rng.integers(0, 256, (40, 30), np.uint8))
        lines.append(f"f{number}.png,p{number // 2},{number % 2},{'' if number == 3 else 1}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    data = tmp_path / "data"

    prepared = dwarf("data", "prepare", "csv", "--root", tmp_path, "--out", data, "--size", "32")
    assert prepared.returncode == 0, prepared.stderr
    assert "8 images" in prepared.stdout
    assert (data / "pixels-32.u8").stat().st_size == 8 * 32 * 32

    checked = dwarf("data", "check", data)
    assert checked.returncode == 0, checked.stdout
    with (data / "pixels-32.u8").open("r+b") as pixels:
        pixels.truncate(100)
    broken = dwarf("data", "check", data)
    assert broken.returncode == 1
    assert "pixels-32.u8" in broken.stdout


def test_what_prepare_changed_is_said(tmp_path):
    for number in range(4):
        film = np.random.default_rng(number).integers(0, 256, (20, 30), np.uint8)
        cv2.imwrite(str(tmp_path / f"f{number}.png"), film)
    rows = [f"f{number},p{number},1" for number in range(4)]
    (tmp_path / "images.csv").write_text("\n".join(["image_id,patient_id,Mass", *rows]) + "\n")
    (tmp_path / "regions.csv").write_text("image_id,finding,x1,y1,x2,y2\nf1,Mass,-5,3,20,15\n")
    done = dwarf("data", "prepare", "csv", "--root", tmp_path, "--out", tmp_path / "d", "--size", 8)
    assert done.returncode == 0, done.stderr
    assert "reached out of the 30×20 image; clipped" in done.stdout
    assert "splits made by patient with seed 0" in done.stdout


def test_a_negative_seed_is_no_traceback(tmp_path):
    cv2.imwrite(str(tmp_path / "f.png"), np.eye(9, dtype=np.uint8))
    (tmp_path / "images.csv").write_text("image_id,patient_id,Mass\nf,p,1\n")
    words = ("data", "prepare", "csv", "--root", tmp_path, "--out", tmp_path / "d", "--seed", "-1")
    done = dwarf(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: seed -1")


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from dwarf_cxr import cli
from dwarf_cxr.data import prepare

decode, decoded = prepare.decode_grey, []

def interrupted(content, where):
    decoded.append(where)
    if len(decoded) == 9:
        signal.raise_signal(signal.SIGINT)
    return decode(content, where)

if sys.argv.pop(1) == "interrupt":
    prepare.decode_grey = interrupted
sys.argv[0] = "dwarf"
cli.main()
"""


def test_ctrl_c_says_how_to_continue(tmp_path):
    for number in range(20):
        film = np.random.default_rng(number).integers(0, 256, (20, 30), np.uint8)
        cv2.imwrite(str(tmp_path / f"f{number}.png"), film)
    rows = [f"f{number},p{number},1" for number in range(20)]
    (tmp_path / "images.csv").write_text("\n".join(["image_id,patient_id,Mass", *rows]) + "\n")
    words = ("data", "prepare", "csv", "--root", tmp_path, "--out", tmp_path / "d", "--size", 8)

    def run(how):
        command = [sys.executable, "-c", INTERRUPTED, how, *map(str, words), "--workers", "1"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    stopped = run("interrupt")
    assert stopped.returncode == 1
    said = f"error: {tmp_path / 'd'}: interrupted; continue with the same command"
    assert [line for line in stopped.stderr.splitlines() if "prepared" not in line] == [said]
    assert not (tmp_path / "d" / "dataset.json").exists()
    continued = run("on")
    assert continued.returncode == 0, continued.stderr
    assert continued.stderr.startswith("continuing: ")
    assert "20 images" in continued.stdout


def test_a_folder_whose_name_is_not_utf8_is_printed_as_it_is(tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/d-\xff")
    words = ("data", "prepare", "synthetic", "--films", "6", "--size", "64", "--out", odd)
    command = [sys.executable, "-m", "dwarf_cxr.cli", *words, "--root", str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(odd) + b": 6 images of synthetic" in done.stdout
    assert b"drew 6 of 6 films" in done.stderr
    checked = [sys.executable, "-m", "dwarf_cxr.cli", "data", "check", odd]
    assert b"Traceback" not in subprocess.run(checked, capture_output=True, timeout=120).stderr


def test_films_are_drawn_for_synthetic_alone(tmp_path):
    said = dwarf(
        "data", "prepare", "csv", "--root", tmp_path, "--out", tmp_path / "d", "--films", 3
    )
    assert said.returncode == 2
    assert "--films is for synthetic" in " ".join(said.stderr.replace("│", " ").split())
