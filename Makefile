# Each target works alone on a machine that has Python 3 and a package index: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CPP := $(shell find ops -name '*.cpp' -o -name '*.h')
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-timm test-openmmlab lint tables clean

demo: $(VENV)/.demo
	$(BIN)/python tools/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $${WORKERS:-2} --dist loadfile

test-timm: $(VENV)/.dev
	$(BIN)/python -m tests.timm_suite

test-openmmlab: $(VENV)/.dev
	$(BIN)/python -m tests.openmmlab_suite

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/python tools/make_tables.py --check

tables: $(VENV)/.dev
	$(BIN)/python tools/make_tables.py

clean:
	rm -rf $(VENV) build dist *.egg-info outputs work_dirs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt $(CPP) | $(VENV)/bin/python
	@echo "installing attnzoo[$*] into $(VENV)"
	$(PIP) --editable '.[$*]'
	@touch $@
