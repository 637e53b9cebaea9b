# Two commands: `make run` shows the main job, `make test` runs every test. Each sets up what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test lint train clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Debian splits venv off Python; where it is missing and may be installed, it is.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); deploy/apt-install python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing fer-stream into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# torch is pinned to a CPU build, and facenet-pytorch comes without the torchvision that would bring a CUDA one.
$(VENV)/.test: pyproject.toml training/requirements.txt | $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]' --requirement training/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps facenet-pytorch==2.6.0
	@touch $@

run: $(VENV)/.run ## the main job: a demo camera, two workers, events as they come (ARGS="..." passes options on)
	@$(BIN)/fer-stream run --workers 2 $(ARGS)

test: $(VENV)/.test ## set up and run every check and test
	@command -v promtool >/dev/null || deploy/apt-install prometheus
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered $(PYTEST)

lint: $(VENV)/.test ## format and check the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
