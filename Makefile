# `make demo` and `make test` do all set-up; everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow check lint types bench faults kills fuzz licences audit clean

demo: $(READY)
	rm -rf demo
	$(BIN)/dwarf demo --out demo

test: $(READY)
	@command -v dciodvfy >/dev/null && echo "dciodvfy: there" || echo "dciodvfy: not there, its tests are skipped"
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: lint types test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# needs the package index, for peers; grad-cam would bring a torchvision that breaks others
bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps grad-cam ttach
	$(BIN)/python benchmarks/step_cost.py
	$(BIN)/python benchmarks/step_cost.py --layers 4 --findings 13 104 --rounds 2
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/review_pages.py

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

KILLS ?= 200
kills: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.kills $(KILLS)

# needs the package index, for atheris
SECONDS ?= 60
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(SECONDS)

licences: $(READY)
	$(BIN)/python scripts/licences.py

# needs a network: asks the advisory database about every installed version
audit: $(READY)
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --skip-editable --path $$($(BIN)/python -c "import site; print(site.getsitepackages()[0])")

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $(READY)

clean:
	rm -rf $(VENV) .audit fuzz-found demo .pytest_cache .mypy_cache .ruff_cache
