# Everything happens in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
MODEL  ?=
ARGS   ?=
# Processes that share the default tests: one a core, at most 8, as each may take 3 GB.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 8 ? 8 : n)))

.PHONY: serve test test-system lint bench format clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.system: $(VENV)/.dev scripts/install_system_parts.sh
	scripts/install_system_parts.sh
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,system]'
	touch $@

serve: $(VENV)/.runtime            ## serve the embedded model, or MODEL=..., on http://127.0.0.1:8000
	$(BIN)/headrace serve $(MODEL) $(ARGS)

test: $(VENV)/.dev                 ## the default tests; ARGS=tests/x.py for some, JOBS=0 for one process
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-system: $(VENV)/.system       ## the whole system: real processes, the embedded model, other people's clients
	$(BIN)/python -m pytest tests/system $(ARGS)

lint: $(VENV)/.dev                 ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev                ## the engine on this CPU, beside transformers, in one run
	$(BIN)/python benchmarks/cpu.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-clients build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
