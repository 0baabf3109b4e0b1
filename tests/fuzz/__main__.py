"""Coverage-guided fuzzing of every reader: `python -m tests.fuzz SECONDS`; needs `atheris`.

The seconds are shared out evenly. An input that makes anything but a DwarfError escape is kept in
`fuzz-found/`, and the exit status is 1; give it a test in tests/fuzz/test_readers.py.
"""

import hashlib
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

FOUND = Path("fuzz-found")


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target until the time is over or an input is found; ends this process."""
    import atheris

    with atheris.instrument_imports(include=["dwarf_cxr", "pydicom"]):
        from tests.fuzz.targets import TARGETS, survives
    target = next(one for one in TARGETS if one.name == name)
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds(place)):
        survives(target, place, seed)
        (corpus / str(number)).write_bytes(seed)

    def one_input(content: bytes) -> None:
        try:
            survives(target, place, content)
        except Exception:
            FOUND.mkdir(exist_ok=True)
            digest = hashlib.sha256(content).hexdigest()[:12]
            (FOUND / f"{name.replace('/', '-')}-{digest}").write_bytes(content)
            traceback.print_exc()
            raise

    options = [f"-max_total_time={seconds}", "-max_len=20000", "-rss_limit_mb=6000", "-timeout=20"]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={place}/", str(corpus)], one_input)
    atheris.Fuzz()


def main(seconds: int) -> int:
    """Fuzz every target in a process of its own; a line for each."""
    from tests.fuzz.targets import TARGETS

    bad = 0
    for target in TARGETS:
        share = max(1, seconds // len(TARGETS))
        words = [sys.executable, "-m", "tests.fuzz", target.name, str(share)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        lines = done.stderr.strip().splitlines()
        runs = next((line for line in reversed(lines) if line.startswith("Done ")), "")
        good = done.returncode == 0 and bool(runs)
        bad += not good
        print(f"{target.name:<24} {runs if good else 'FOUND'}", flush=True)
        if not good:
            print("\n".join(lines[-40:]), flush=True)
    print(f"{bad} of {len(TARGETS)} readers let something else than a DwarfError escape")
    return int(bad > 0)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        fuzz(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(main(int(sys.argv[1])))
