# make demo [VIDEO=clip.mp4]: from nothing to explained videos. make test: the tests. Both set up .venv first if it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
SEED ?= 0
# Large pages for large blocks: a training step on a CPU in four fifths of the time (docs/benchmarks.md). glibc 2.35 or newer; others ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test lint lock setup

demo: $(VENV)/ready
	@$(BIN)/python tools/demo.py --out=$(DEMO) --seed=$(SEED) $(if $(VIDEO),--video="$(VIDEO)")

test: $(VENV)/ready
	@$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses=4 --dist loadfile

lint: $(VENV)/ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@if [ -x $(BIN)/mypy ]; then $(BIN)/mypy; fi

setup: $(VENV)/ready

# The marker is touched last, so that an interrupted installation is done again.
$(VENV)/ready: requirements/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python %d.%d is too old; expected 3.11 or newer; give PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (a minute or two, 1.7 GB) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/cpu.txt
	@touch $@

# The lock: every version and hash, for Python 3.11 and newer, made from setup.cfg.
lock:
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile setup.cfg --extra prep --extra test --extra beam --extra pretrained --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements/cpu.txt
