# What CI calls, and you can. PYTHON=python takes an environment of your own instead of .venv.
PYTHON ?= .venv/bin/python
EXTRAS ?= dev,integrations,baselines
CONSTRAINTS ?= constraints.txt

.PHONY: help install test test-fast lint types docs notebook notebook-outputs oldest oldest-torch
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: ## .venv with everything that working on the package needs
	test "$(PYTHON)" != .venv/bin/python || test -x .venv/bin/python || python3 -m venv .venv
	$(PYTHON) -m pip install -q -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"

test: ## all tests
	$(PYTHON) -m pytest -n 2 --dist loadfile

test-fast: ## all tests but the slow ones
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow"

lint: ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## mypy
	$(PYTHON) -m mypy emo_hf

docs: ## the site, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

notebook: ## executes the quickstart; the file stays as it is
	$(PYTHON) -m scripts.execute_notebook

notebook-outputs: ## executes the quickstart and keeps what comes out in the file
	$(PYTHON) -m scripts.execute_notebook --keep

oldest: ## the integration tests with the oldest supported versions, in an environment of their own
	.ci/oldest

oldest-torch: ## the same with the oldest torch too: 4 GB of CUDA libraries
	.ci/oldest --torch
