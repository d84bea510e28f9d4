# Everything is installed into .venv; nothing else of the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRODUCT := $(VENV)/.product
READY := $(VENV)/.ready
# Each package is shown when it is collected; what goes wrong stands on stderr.
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PEERS := .venv-peers
NEWEST := $(shell for minor in 13 12; do \
  python3.$$minor -c "import ensurepip" 2>/dev/null && echo python3.$$minor && break; done)
PYTEST := $(BIN)/pytest -q
SIDE_BY_SIDE := -n auto
# Tests that wait more than they compute: more of them than cores run at once.
# Files are handed out in this order: the last ones are short, so that all processes end together.
WAITING := tests/journeys tests/integration
WAITING_SIDE_BY_SIDE := -n 8 --dist loadfile --no-loadscope-reorder
# Tests that compute run beside them, a process for each core, in the time that the others leave,
# and so does what checks the code.
# Each process collects only the files of its kind: collecting all takes 5 processor seconds.
COMPUTING := tests/simulation tests/conformance tests/unit
IN_IDLE_TIME := nice -n 10
# Seconds for which the processors of this machine have been busy, where the system tells.
BUSY := awk '/^cpu /{print int(($$2+$$3+$$4+$$7+$$8)/100)}' /proc/stat 2>/dev/null

# Tests start hundreds of processes of ours, and each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup dev demo up docs check style ruff types layers house collect unit test nightly mutation test-system newest bench bench-peers chaos fuzz clean
.DEFAULT_GOAL := help

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(PRODUCT) ## Install segrelay into .venv; again only if something changed

dev: $(READY) ## Install what the tests and checks need, too

$(PRODUCT): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "segrelay needs Python 3.11 or newer; this is `$(PYTHON) --version`. Try: make PYTHON=python3.13"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing segrelay and what it needs into $(VENV): about 180 MB, a minute or less."
	@$(PIP) -e '.[flower]'
	@touch $(PRODUCT)

$(READY): $(PRODUCT)
	@echo "Installing what tests and checks need into $(VENV): about 600 MB more."
	@$(PIP) -e '.[dev]'
	@touch $(READY)

demo: setup ## Backfill, receive and sync invented people against stand-ins, and compare
	$(BIN)/segrelay demo

up: setup ## Run Redis, a worker, and the receiver and Flower if configured
	$(BIN)/segrelay up

docs: dev ## Write the pages in docs/ that are made from the code anew
	$(BIN)/python -m tools.reference

CHECKED := ruff types layers house
check: dev ## Check style, types, imports and rules about the code, and that all tests can be collected
	@$(MAKE) --no-print-directory --jobs 5 $(CHECKED) collect

ruff:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports --no-logo

house:
	$(PYTEST) tests/house

style: check

# The folders come in reverse: those of the worker wait longest, and the last tests are short, so that
# all processes end together.
unit: dev ## Run the unit tests (no services)
	$(PYTEST) $(SIDE_BY_SIDE) $$(ls -dr tests/unit/*)

test: dev ## Check everything and run all tests; each service that they need is started by itself
	@$(MAKE) --no-print-directory collect
	@checked=$$(mktemp); computed=$$(mktemp); begun=`$(BUSY)`; \
	$(IN_IDLE_TIME) $(MAKE) --no-print-directory --jobs 4 --keep-going $(CHECKED) >$$checked 2>&1 & checking=$$!; \
	$(IN_IDLE_TIME) $(PYTEST) $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder $(COMPUTING) >$$computed 2>&1 & computing=$$!; \
	$(PYTEST) $(WAITING_SIDE_BY_SIDE) $(WAITING); failed=$$?; \
	wait $$checking || failed=1; wait $$computing || failed=1; \
	cat $$checked $$computed; rm $$checked $$computed; \
	echo "processor time of the whole machine: $$((`$(BUSY) || echo 0` - $${begun:-0})) s"; exit $$failed

# It also compiles all tests once, so that not each of the processes that run them does it anew.
collect:
	@collected=$$($(PYTEST) --collect-only $(WAITING) $(COMPUTING) tests/system 2>&1) || { echo "$$collected" | tail -25; exit 1; }

nightly: ## Run all tests with the full number of examples, kills and events: hours
	SEGRELAY_TESTS=nightly $(MAKE) test

mutation: dev ## Change the core at one place after the other, and name the changes that no test notices: hours (ONLY="segrelay.worker.core*")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mutmut
	-$(BIN)/mutmut run $(ONLY)
	$(BIN)/mutmut results
	$(if $(ONLY),,$(BIN)/python -m tests.lua_mutants 400)

test-system: dev ## Run tests that need system packages, which it installs (Debian, as root)
	sh ops/test-system.sh
	@# Only its script axe.min.js is used, so Playwright, which it names, is not needed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt axe-playwright-python
	@# Helm as a library, 250 MB; where it has no wheel, the tests of the chart are skipped.
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -c constraints.txt helm-python-sdk
	$(PYTEST) tests/system
	$(if $(NEWEST),$(MAKE) newest)

newest: ## Run the unit tests on the newest Python of this machine, in an environment of its own
	$(MAKE) unit PYTHON=$(or $(NEWEST),$(PYTHON)) VENV=.venv-newest

bench: dev ## Measure several times, all but what takes very long (SCENARIO="end-to-end triggers", ARGS="--runs 3 --events 50000")
	$(BIN)/python -m tools.bench $(SCENARIO) $(ARGS)

bench-peers: dev ## Measure beside what a person could choose instead, some 5 minutes (ARGS="--runs 7")
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/bench/peers/requirements.txt
	PEER_PYTHON=$(abspath $(PEERS)/bin/python) $(BIN)/python -m tools.bench.peers $(ARGS)

chaos: dev ## Kill, stop and break everything, and count what is wrong (ARGS="--events 100000")
	$(BIN)/python -m tools.chaos $(ARGS)

fuzz: dev ## Compare compiled templates with the engines on random ones (ARGS="--seed 1 --seconds 60")
	$(BIN)/python -m tools.fuzz $(ARGS)

clean: ## Remove .venv and caches
	rm -rf $(VENV) .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis
