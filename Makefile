# Every target works from a bare checkout: it makes .venv and installs the pinned set first.

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
            $$p -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
              2>/dev/null && { echo $$p; break; }; done)

CONFIG ?= configs/quickstart.yaml
STORE  ?= store
HTML   ?= $(STORE)-results.html

PYTEST := $(BIN)/python -m pytest -n $(or $(AT_ONCE),2) --dist loadfile

# What guards data must not hang on assert statements, which python -O drops (but not the tests' own:
# pytest writes those anew).
INTEGRITY := $(addprefix tests/test_,refusals.py partitions.py shards.py snapshot.py)

.DEFAULT_GOAL := help
.PHONY: help install demo index query test test-slow test-all test-engines lint types bench bench-embed bench-index bench-query bench-quality bench-duplicates bench-serve faults fuzz clean

help:  ## what can be made
	@echo "lookalike: image-by-image search, built offline"; echo
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  make index IMAGES=DIR [STORE=store] [CONFIG=configs/quickstart.yaml]"
	@echo "  make query IMAGES=PICTURE [STORE=store] [HTML=store-results.html]"

install: $(READY)  ## .venv with the pinned set

$(READY): setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10 to 3.13 found; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "installing the pinned set into $(VENV) with $(PYTHON) (about 2 GB, some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(READY)  ## index a few hundred made pictures, query some, name the page to look at
	@$(BIN)/python -m examples.demo demo

index: $(READY)  ## index your own: make index IMAGES=DIR STORE=DIR
	@test -n "$(IMAGES)" || { echo "name the pictures: make index IMAGES=DIR [STORE=$(STORE)]" >&2; exit 2; }
	@$(BIN)/lookalike index --config "$(CONFIG)" --images "$(IMAGES)" --store "$(STORE)"

query: $(READY)  ## search: make query IMAGES=PICTURE-OR-DIR STORE=DIR
	@test -n "$(IMAGES)" || { echo "name the pictures to search with: make query IMAGES=PICTURE [STORE=$(STORE)]" >&2; exit 2; }
	@$(BIN)/lookalike query --store "$(STORE)" --images "$(IMAGES)" --html "$(HTML)"

test: $(READY) lint types  ## lint, types, tests but for the slow ones: [AT_ONCE=2]
	@$(BIN)/python -O -m pytest -W ignore::pytest.PytestConfigWarning $(INTEGRITY)
	@$(PYTEST) -m "not engines and not slow"

test-slow: $(READY)  ## the slow tests: [AT_ONCE=2]
	@$(PYTEST) -m "slow and not engines"

test-all: test test-slow  ## both of these

test-engines: $(READY)  ## whole runs on the direct runner, Dask and Prism (which Go builds the first time), workers killed
	@$(BIN)/python -m tests.prism >/dev/null || echo "without Prism, whose tests are skipped"
	@$(BIN)/python -m pytest -m engines -ra

lint: $(READY)  ## ruff
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && echo "lint: clean"

types: $(READY)  ## mypy
	@$(BIN)/mypy

bench: bench-embed bench-index bench-query  ## those of the following that need no pictures of yours

bench-embed: $(READY)  ## images/s of the embed stage beside other ways: [IMAGES=SRC] [MODEL=HANDLE] [JSON=FILE]
	@$(BIN)/python -m benchmarks.embed $(if $(IMAGES),--images "$(IMAGES)") $(if $(MODEL),--model "$(MODEL)") $(if $(JSON),--json "$(JSON)") $(FLAGS)

bench-index: $(READY)  ## the index beside autofaiss, Faiss's recipe, exact search: [ROWS=100000] [VECTORS=FILES | IMAGES=SRC MODEL=HANDLE] [JSON=FILE]
	@$(BIN)/python -m benchmarks.index $(if $(ROWS),--rows "$(ROWS)") $(if $(VECTORS),--vectors $(VECTORS)) $(if $(IMAGES),--images "$(IMAGES)") $(if $(MODEL),--model "$(MODEL)") $(if $(JSON),--json "$(JSON)") $(FLAGS)

bench-query: $(READY)  ## what one query takes, alone and beside busy processes: [ROWS=300000] [STORE=DIR] [JSON=FILE]
	@$(BIN)/python -m benchmarks.query $(if $(ROWS),--rows "$(ROWS)") $(if $(filter command line environment,$(origin STORE)),--store "$(STORE)") $(if $(JSON),--json "$(JSON)") $(FLAGS)

bench-quality: $(READY)  ## precision, robustness and images/s of every shipped feature: IMAGES=SRC, folders are labels [JSON=FILE]
	@test -n "$(IMAGES)" || { echo "name the pictures, their folders are labels: make bench-quality IMAGES=DIR" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.quality --images "$(IMAGES)" $(if $(JSON),--json "$(JSON)") $(FLAGS)

bench-duplicates: $(READY)  ## edits of photographs found as copies, with and without --verify: IMAGES=DIR [AMONG=DIR] [IMAGEDEDUP=PYTHON] [JSON=FILE]
	@test -n "$(IMAGES)" || { echo "name the photographs: make bench-duplicates IMAGES=DIR [AMONG=DIR]" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.duplicates --images "$(IMAGES)" $(if $(AMONG),--among "$(AMONG)") $(if $(IMAGEDEDUP),--imagededup "$(IMAGEDEDUP)") $(if $(JSON),--json "$(JSON)") $(FLAGS)

bench-serve: $(READY)  ## a search by many clients of `lookalike serve`, beside the library's: [ROWS=100000] [STORE=DIR] [JSON=FILE]
	@$(BIN)/python -m benchmarks.serve $(if $(ROWS),--rows "$(ROWS)") $(if $(filter command line environment,$(origin STORE)),--store "$(STORE)") $(if $(JSON),--json "$(JSON)") $(FLAGS)

faults: $(READY)  ## a run killed, failed, cut short at every change of the store: [EVERY=1] [ONLY=folder|bucket|pictures|vectors|…]
	@PYTHONPATH=.:tests $(BIN)/python -m faults --every $(or $(EVERY),1) $(if $(ONLY),--only "$(ONLY)")

fuzz: $(READY)  ## damaged files through the decode path: make fuzz [IMAGES=SRC] [SECONDS=60]
	@$(BIN)/python -m tests.fuzz $(if $(IMAGES),--images "$(IMAGES)") --seconds $(or $(SECONDS),60)

clean:  ## remove what was made here (.venv, demo)
	rm -rf $(VENV) demo build *.egg-info
