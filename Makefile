# One word per job; `make help` lists them. Nothing but make and Python 3.11+ need be installed:
# set-up makes $(VENV), with uv if the machine has it and with a uv of its own if not.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
OUT ?= out/demo
BIN := $(VENV)/bin
PY := $(BIN)/python

# The first Python here that runs and is new enough (3.11 first: it is the one tested).
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
UV := $(shell command -v uv || echo $(BIN)/uv)

# A wheelhouse given to pip (a CPU build of torch, say) is meant for uv too; uv wants commas.
ifndef UV_FIND_LINKS
ifdef PIP_FIND_LINKS
empty :=
space := $(empty) $(empty)
comma := ,
export UV_FIND_LINKS := $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
endif

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# ---- what the README promises ------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.run-stamp ## install, render example fields, analyse them (OUT=folder)
	$(BIN)/bloodfilm demo --out $(OUT)

.PHONY: test
test: $(VENV)/.dev-stamp ## install what development needs and run every test
	$(PY) -m pytest

# ---- development -------------------------------------------------------------------------------

.PHONY: run-env
run-env: $(VENV)/.run-stamp ## only set up: bloodfilm without PyTorch

.PHONY: dev-env
dev-env: $(VENV)/.dev-stamp ## only set up: everything, for development

# Keys of older file versions are quoted, and stay what they were.
QUOTED := '[`"][][a-z_]+[`"]'

.PHONY: static
static: $(VENV)/.dev-stamp ## format check, lint, types, import contracts, spelling and terms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/codespell -D .codespell/terms.txt --ignore-regex $(QUOTED) \
		--skip src/bloodfilm/bundles *.md docs src

.PHONY: check
check: static ## static, then the fast tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n auto --dist loadfile

.PHONY: coverage
coverage: $(VENV)/.dev-stamp ## every test, and which lines no test runs
	$(PY) -m pytest --cov --cov-report=term:skip-covered

FUZZ_EXAMPLES ?= 100000

.PHONY: fuzz
fuzz: $(VENV)/.dev-stamp ## read FUZZ_EXAMPLES changed files of every kind, drawn anew each time
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PY) -m pytest tests/fuzz

.PHONY: docs
docs: $(VENV)/.docs-stamp ## build the documentation site into out/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.PHONY: floors
floors: ## the fast tests with the lowest versions that pyproject.toml allows (in $(VENV)-floors)
	$(MAKE) VENV=$(VENV)-floors $(VENV)-floors/.floors-stamp
	$(VENV)-floors/bin/python -m pytest -m "not slow"

.PHONY: format
format: $(VENV)/.dev-stamp ## rewrite the code the way `check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(PY):
	@if [ -z "$(PYTHON)" ]; then echo "error: Python 3.11 or newer is needed" >&2; exit 1; fi
	@if command -v uv >/dev/null; then uv venv --quiet --python "$(PYTHON)" $(VENV); \
	else "$(PYTHON)" -m venv $(VENV); fi

# Where the machine has no uv of its own (or no longer the one that made the environment).
$(BIN)/uv: | $(PY)
	$(PY) -m ensurepip >/dev/null && $(PY) -m pip install --quiet uv

# Compiled at once, so that no process has to, also where Python may not write bytecode later.
$(VENV)/.run-stamp: pyproject.toml locks/run.txt | $(PY) $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(PY) -r locks/run.txt -e .
	@touch $@

$(VENV)/.dev-stamp: pyproject.toml locks/dev.txt | $(PY) $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(PY) -r locks/dev.txt -e '.[train,index]'
	@touch $@ $(VENV)/.run-stamp

$(VENV)/.docs-stamp: locks/docs.txt $(VENV)/.dev-stamp | $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(PY) -r locks/docs.txt
	@touch $@

# The lowest versions of what the project asks for itself, current ones of everything beneath.
$(VENV)/.floors-stamp: pyproject.toml | $(PY) $(UV)
	$(UV) pip install --quiet --compile-bytecode --upgrade --python $(PY) --resolution lowest-direct -e '.[dataframe,index,plot,slides,train]' --group dev
	@touch $@

# ---- locks -------------------------------------------------------------------------------------
# Compiled for every platform, from the package index alone: a local wheelhouse must not leak
# into them. Written without the names of indexes, and without hashes, because a machine may offer
# its own build of torch (torch 2.13.0+cpu satisfies torch==2.13.0, with another hash). The CUDA
# packages are left out: the default torch build for Linux pins each of them exactly itself, and a
# CPU build does not want them.
COMPILE := env -u UV_FIND_LINKS -u PIP_FIND_LINKS uv pip compile --quiet --universal \
	--python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links
WITHOUT_CUDA := grep -vE '^(nvidia-|cuda-|triton)'
LOCK_HEADER := \# Made by `make lock` from pyproject.toml and locks/pins.txt. Do not edit.

.PHONY: lock
lock: ## resolve every dependency anew (needs uv)
	{ echo '$(LOCK_HEADER)'; $(COMPILE) --upgrade --all-extras --group dev -c locks/pins.txt \
		pyproject.toml | $(WITHOUT_CUDA); } > locks/dev.txt.new
	mv locks/dev.txt.new locks/dev.txt
	{ echo '$(LOCK_HEADER)'; $(COMPILE) -c locks/dev.txt pyproject.toml; } > locks/run.txt.new
	mv locks/run.txt.new locks/run.txt
	{ echo '$(LOCK_HEADER)'; $(COMPILE) --group docs -c locks/dev.txt; } > locks/docs.txt.new
	mv locks/docs.txt.new locks/docs.txt

.PHONY: clean
clean: ## forget the set-up and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
