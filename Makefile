# Two commands do all the set-up:
#   make demo   the environment in .venv/, the plain package, a scan of examples/
#   make test   everything that MAI can use, then ruff, mypy and all tests
# Others: make check (no tests), make soak (minutes to hours), make docs (docs/cli.md), make wheel, make clean.
# PYTHON=python3.12 make demo: with that interpreter. PYTEST="-k decode" make test: only those tests.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
OK := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(OK)' >/dev/null 2>&1 && echo "$$p" && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST ?=

.PHONY: demo test check soak docs wheel clean

demo: $(VENV)/.plain
	$(BIN)/mai scan examples/

test: $(VENV)/.all check
	$(BIN)/python -m pytest -m "not soak" $(PYTEST)

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/.all
	$(BIN)/python -m pytest -m soak $(PYTEST)

docs: $(VENV)/.all
	$(BIN)/python docs/make_cli.py

wheel: $(VENV)/.all
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

# Each stamp is an empty file, made when the step before it went well and made again when its inputs changed.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "MAI needs Python 3.11 or newer; none was found (python3 here: $$(python3 --version 2>&1)). Install one, or name it: PYTHON=/path/to/python3.12 make demo" >&2; exit 1; }
	@"$(PYTHON)" -c '$(OK)' || { echo "MAI needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: PYTHON=/path/to/python3.12 make demo" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV) || { echo "Python's venv does not work here; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.plain: $(VENV)/.made pyproject.toml
	@echo "Installing mai-identifier into $(VENV)/ ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.all: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing mai-identifier[all,dev] into $(VENV)/ ..."
	@$(PIP) install --editable ".[all,dev]" --constraint constraints.txt
	@touch $@ $(VENV)/.plain
