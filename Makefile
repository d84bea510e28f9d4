# Everything is installed into .venv; nothing else of the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
NEWEST := $(shell for minor in 13 12; do \
  python3.$$minor -c "import ensurepip" 2>/dev/null && echo python3.$$minor && break; done)
PYTEST := $(BIN)/pytest -q
SIDE_BY_SIDE := -n auto
# Journeys and integration tests wait more than they compute: more of them than cores run at once.
# Files are handed out in this order: the last ones are short, so that all processes end together.
ALL_SIDE_BY_SIDE := -n 8 --dist loadfile --no-loadscope-reorder
TESTS := tests/journeys tests/integration tests/conformance tests/unit tests/house
# A failed test that starts processes runs once more, and is named; others never.
SECOND_RUN := -p tests.second_run

# Tests start hundreds of processes of ours, and each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up docs check style ruff types layers collect unit test nightly test-system newest bench bench-peers chaos fuzz clean
.DEFAULT_GOAL := help

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv; again only if something changed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "segrelay needs Python 3.11 or newer; this is `$(PYTHON) --version`. Try: make PYTHON=python3.13"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup ## Backfill, receive and sync invented people against stand-ins, and compare
	$(BIN)/segrelay demo

up: setup ## Run Redis, a worker, and the receiver and Flower if configured
	$(BIN)/segrelay up

docs: setup ## Write the pages in docs/ that are made from the code anew
	$(BIN)/python -m ops.reference

check: setup ## Check style, types and imports, and that all tests can be collected: seconds
	@$(MAKE) --no-print-directory --jobs 4 ruff types layers collect

ruff:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports --no-logo

style: check

unit: setup ## Run the unit tests, and the rules about the code itself (no services)
	$(PYTEST) $(SIDE_BY_SIDE) tests/unit tests/house

test: setup ## Check everything and run all tests; each service that they need is started by itself
	@$(MAKE) --no-print-directory check
	$(PYTEST) $(SECOND_RUN) $(ALL_SIDE_BY_SIDE) $(TESTS)

# It also compiles all tests once, so that not each of the processes that run them does it anew.
collect:
	@collected=$$($(PYTEST) --collect-only $(TESTS) tests/system 2>&1) || { echo "$$collected" | tail -25; exit 1; }

nightly: ## Run all tests with the full number of examples, kills and events: hours
	SEGRELAY_TESTS=nightly $(MAKE) test

test-system: setup ## Run tests that need system packages, which it installs (Debian, as root)
	sh ops/test-system.sh
	$(PYTEST) $(SECOND_RUN) tests/system
	$(if $(NEWEST),$(MAKE) newest)

newest: ## Run the unit tests on the newest Python of this machine, in an environment of its own
	$(MAKE) unit PYTHON=$(or $(NEWEST),$(PYTHON)) VENV=.venv-newest

bench: setup ## Measure several times, all but what takes very long (SCENARIO="end-to-end triggers", ARGS="--runs 3 --events 50000 --plots docs/plots")
	$(BIN)/python -m ops.bench $(SCENARIO) $(ARGS)

bench-peers: setup ## Measure beside what a person could choose instead (ARGS="--runs 3")
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r ops/bench/peers/requirements.txt
	PEER_PYTHON=$(abspath $(PEERS)/bin/python) $(BIN)/python -m ops.bench.peers $(ARGS)

chaos: setup ## Kill, stop and break everything, and count what is wrong (ARGS="--events 100000")
	$(BIN)/python -m ops.chaos $(ARGS)

fuzz: setup ## Compare compiled templates with the engines on random ones (ARGS="--seed 1 --seconds 60")
	$(BIN)/python -m ops.fuzz $(ARGS)

clean: ## Remove .venv and caches
	rm -rf $(VENV) .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis
