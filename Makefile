# Needs Python 3.11 or newer with venv, make and a package index; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What a careful user has beside hostdev itself.
PLUGINS := plugins/hostdev-guard plugins/hostdev-audit
PYTEST := $(BIN)/python -m pytest
# One more than there are CPUs: many tests wait for other processes.
JOBS ?= $(shell echo $$(($$(nproc) + 1)))
# pyright asks nobody whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all test-kernel test-kernel-all soak mutants lint types bench bench-all bench-list wheel docs ci clean tools chromium
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/.installed  ## lend and take back a device of a simulated host; show this machine's
	@$(BIN)/hostdev demo

test: $(VENV)/.installed-test tools  ## every behaviour, on simulated hosts; no root (ARGS="-k name")
	$(PYTEST) tests --ignore=tests/kernel --timeout=300 -n $(JOBS) --dist worksteal -m "not long" $(ARGS)

test-all: $(VENV)/.installed-test tools chromium  ## the same at length: every call at every moment; pictures in Chromium
	$(PYTEST) tests --ignore=tests/kernel --timeout=300 -n $(JOBS) --dist worksteal $(ARGS)

test-kernel: $(VENV)/.installed-test  ## the tests on real kernels, under QEMU (Debian 12)
	$(PYTEST) tests/kernel -n 3 $(ARGS)

test-kernel-all: $(VENV)/.installed-test  ## the cases of docs/tested-on.md on Debian 12, 13 and backports; writes it
	HOSTDEV_LAB_SYSTEMS="debian12 debian13 backports" HOSTDEV_TESTED_ON=docs/tested-on.md \
	  $(PYTEST) tests/kernel -n 3 -m case $(ARGS)

soak: $(VENV)/.installed-test  ## kills, failures, signals and races at length (ARGS=minutes)
	$(BIN)/python -m tests.soak $(ARGS)

mutants: $(VENV)/.installed-test  ## take safety-critical conditions away, one by one; minutes (ARGS="WORD --near")
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/.installed-dev  ## format, rules, and the way imports run; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev  ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-test  ## what hostdev costs beside other tools; writes docs/performance.md (root on Debian 12)
	$(BIN)/python -m benchmarks --write docs/performance.md $(ARGS)

bench-all: $(VENV)/.installed-test  ## the same with more of everything, NVMe and Xen; an hour or two
	$(BIN)/python -m benchmarks --all --write docs/performance.md $(ARGS)

bench-list: $(VENV)/.installed-test  ## what listing costs, printed; under a minute (ARGS=rounds)
	$(BIN)/python -m benchmarks listing --devices 1024 --rounds $(or $(ARGS),5)

wheel: $(VENV)/.installed-dev  ## wheel and sdist, in dist/
	$(BIN)/python -m build --outdir dist .

docs: $(VENV)/.installed-docs  ## the documentation, in build/docs; a warning or a broken link is an error
	$(BIN)/python -m sphinx -c docs -d build/doctrees -E -W -n --keep-going -q . build/docs
	@echo build/docs/index.html

ci:  ## what a change must pass: .ci/run
	.ci/run

clean:  ## remove what make made; the kernel lab in build/ stays
	rm -rf $(VENV) dist build/docs build/doctrees .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: WANT = .
$(VENV)/.installed-test: WANT = .[test]
$(VENV)/.installed-dev: WANT = .[dev]
$(VENV)/.installed-docs: WANT = .[docs]

$(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-dev $(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '$(WANT)' $(addprefix --editable ,$(PLUGINS))
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'hostdev needs Python 3.11 or newer; $(PYTHON) is '"$$($(PYTHON) --version 2>/dev/null || echo not there)"': make PYTHON=python3.12 ...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" \
	    "(or $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Tests type into these shells, render the manual pages, and count what `hostdev list` opens and starts.
TOOLS := bash zsh fish man-db strace
tools:
	@dpkg-query -W -f '$${Status}\n' $(TOOLS) 2>/dev/null | grep -c '^install ok installed$$' | grep -qx $(words $(TOOLS)) || \
	  [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(TOOLS); } || true

# The tests marked `browser` need it, and fail without it.
chromium:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } || true
