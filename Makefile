# Every target sets up what it needs from nothing: Python 3.11 to 3.13 and make are enough.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
EVENTS ?= 120000
WORKERS ?= 2
HISTORIES ?= 200

.PHONY: demo test test-slow test-long check package bench docs format clean
.DEFAULT_GOAL := demo

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "refold needs Python 3.11 to 3.13; say make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

.venv/dev: .venv/core
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/core  ## make an order history on disk, rebuild, publish, print the read models
	$(BIN)/refold demo --events $(EVENTS)

test: .venv/dev  ## all tests but the slow ones: about five minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: .venv/dev  ## the others: pipelines, servers, kills, laws and every example of the docs, about half an hour
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

test-long: .venv/dev  ## the laws, faults and API requests at full size: hours
	REFOLD_HYPOTHESIS_EXAMPLES=$(HISTORIES) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/properties
	REFOLD_HOSTILE_VALUES=all $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/values
	REFOLD_FAULTS=all REFOLD_KILLS=500 REFOLD_FLIPS=300 REFOLD_TEST_COMMANDS=4000 REFOLD_OPERATIONS=1000 REFOLD_FUZZ=20000 \
		$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/faults --deselect tests/faults/test_soak.py
	REFOLD_SOAK_MINUTES=30 $(BIN)/python -m pytest tests/faults/test_soak.py
	REFOLD_TEST_RACING_PAIRS=2000 $(BIN)/python -m pytest tests/warehouse/commands
	REFOLD_TEST_OPENAPI_EXAMPLES=100 REFOLD_TEST_READ_YOUR_WRITES=1000 $(BIN)/python -m pytest \
		tests/pipelines/serving/test_openapi.py tests/pipelines/serving/test_serve.py

check: .venv/dev  ## lint, types, import directions, pre-commit's configuration
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

package: .venv/dev  ## the sdist and the wheel in dist/, checked, and tried on Python 3.11, 3.12 and 3.13
	$(BIN)/python .ci/package.py

bench: .venv/dev  ## the benchmarks at a size for a coffee
	$(BIN)/python -m benchmarks.append
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.rebuild --events 20000000
	$(BIN)/python -m benchmarks.trading --events 10000000
	$(BIN)/python -m benchmarks.trading --events 2000000 --fold

docs: .venv/dev  ## run every example of the documentation, and build its site into build/docs
	$(BIN)/python -m pytest tests/test_docs.py tests/test_reference.py
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo-data benchmark-data build dist src/*.egg-info
