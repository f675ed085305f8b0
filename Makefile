# `make reproduce` and `make test` work on a fresh clone with Python >= 3.11, a C++ compiler and a package index.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
OUT ?= runs/demo
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE := 1

.PHONY: setup reproduce test docs readme bench clean

setup: .venv/done

.venv/done: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,text]'
	touch $@

reproduce: setup
	-medsam-prompts checkpoints fetch mobile_sam --quiet
	medsam-prompts reproduce --profile demo --jobs $(JOBS) --out $(OUT)

test: setup
	$(BIN)/python tests/in_sync.py
	nbdev-test
	$(BIN)/python -m pytest -q tests $(PYTEST)

docs: setup
	$(BIN)/python tests/build_docs.py _docs

readme: setup
	$(BIN)/python tests/build_readme.py

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv _docs build dist runs *.egg-info .pytest_cache
