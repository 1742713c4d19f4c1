# One word for each chore. Each sets up what it needs, once; `make help` lists them.

PYTHON ?= python3.11
VENV ?= .venv
TORCH_INDEX ?=
MIRROR ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
FROM := $(if $(MIRROR),--index-url $(MIRROR))
PROJECT := pyproject.toml constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)

ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench results clean

help: ## list the chores and the variables
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16
	@echo
	@echo "  Variables, as in \`make test TORCH_INDEX=https://download.pytorch.org/whl/cpu\`:"
	@echo "  PYTHON       the Python to build on, 3.11 or later        (now: $(PYTHON))"
	@echo "  VENV         the virtual environment                      (now: $(VENV))"
	@echo "  TORCH_INDEX  where torch comes from, such as https://download.pytorch.org/whl/cpu for the small build"
	@echo "  MIRROR       where all else comes from, such as https://pypi.tuna.tsinghua.edu.cn/simple"
	@echo "  Without them pip's own configuration decides."

setup: $(VENV)/.for-developers ## install Bothways with what its tests and checks need

check: $(VENV)/.for-developers ## lint, format, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

test: check ## the checks, then all tests
	$(BIN)/python -m pytest -q

demo: $(VENV)/.for-users ## train, score and use a small model, start to finish
	$(BIN)/bothways demo

bench: $(VENV)/.for-developers ## measure Bothways beside its peers into docs/benchmarks.md, hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.page

results: $(VENV)/.for-developers ## measure every task on the data in ../shared/data, hours; goes on where it was stopped
	$(BIN)/python -m runs.vectors
	$(BIN)/python -m runs.generate --minutes 12
	$(BIN)/python -m runs.results

clean: ## remove what the chores left, but not the virtual environment
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks runs -name __pycache__ -prune -exec rm -rf {} +

# torch comes first, by itself: its index may be another one, and what follows then finds it there.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),$(FROM)) '$(TORCH)'
	@touch $@

$(VENV)/.for-users: $(PROJECT) | $(VENV)/.torch
	$(PIP) $(FROM) --constraint constraints.txt --editable '.[serve,vectors]'
	@touch $@

$(VENV)/.for-developers: $(PROJECT) | $(VENV)/.torch
	$(PIP) $(FROM) --constraint constraints.txt --editable '.[test,dev]'
	@touch $@ $(VENV)/.for-users
