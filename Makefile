# Character LoRAs from images to a published release. `make` alone shows this help.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# As pip does with what it copies: where Python may not write bytecode, every command would compile 60 modules anew.
COMPILE = $(PY) -m compileall -q orchestrator
RECIPES := $(patsubst recipes/%.toml,%,$(wildcard recipes/*.toml))
OPTIONS := $(if $(PROFILE),--profile $(PROFILE)) $(if $(ENGINE),--engine $(ENGINE))
# The demo profile trains on the embedded engine, which needs torch in our own environment.
READY := $(VENV)/.$(if $(or $(filter demo,$(PROFILE)),$(filter embedded,$(ENGINE))),embedded,light)

.PHONY: help setup demo all plan test test-all test-sd-scripts test-browser test-ray test-faults fuzz mutants check format bench bench-world doctor report tensorboard docs clean $(RECIPES)

help:  ## this help
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*## /\t/' | expand -t 18
	@echo
	@echo "recipes (make krnk-locon, or make krnk-locon PROFILE=demo):"
	@echo $(RECIPES) | fold -s -w 90 | sed 's/^/  /'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Name one: make PYTHON=python3.11"; exit 3; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.light: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the orchestrator into $(VENV)"
	@$(PIP) --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.embedded: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the embedded engine into $(VENV) (torch and its companions, once: 1 to 3 minutes)"
	@$(PIP) --editable '.[embedded]'
	@$(COMPILE)
	@touch $@ $(VENV)/.light

$(VENV)/.dev: $(VENV)/.embedded
	@echo "installing the test tools into $(VENV)"
	@$(PIP) --editable '.[embedded,dev]'
	@touch $@

$(VENV)/.ray: $(VENV)/.dev
	@$(PIP) --editable '.[ray]'
	@touch $@

setup: $(VENV)/.light  ## sd-scripts: submodule and its own environment (.venv-sd-scripts, several GB)
	@$(PY) -m orchestrator.engines.sdscripts.setup

demo: $(VENV)/.embedded  ## 15 LoRAs, pictures and a release folder on this machine's CPU, by real training
	@$(PY) -m orchestrator demo

all: $(READY)  ## every recipe, and the release they form together
	@$(PY) -m orchestrator all $(OPTIONS)

$(RECIPES): %: $(READY)
	@$(PY) -m orchestrator run $* $(OPTIONS)

plan: $(READY)  ## what would run, and why
	@$(PY) -m orchestrator plan all $(OPTIONS)

doctor: $(READY)  ## all that would stop a run, with the command that mends it
	@$(PY) -m orchestrator doctor $(OPTIONS)

report: $(READY)  ## one HTML page of all runs
	@$(PY) -m orchestrator report $(OPTIONS)

test: $(VENV)/.dev  ## the tests: no GPU, no network, no sd-scripts
	@$(PY) -m pytest -m "not faults and not sd_scripts and not browser and not ray"

test-sd-scripts: $(VENV)/.dev  ## against a real sd-scripts checkout (SD_SCRIPTS_DIR or the submodule)
	@$(PY) -m pytest -m sd_scripts

$(VENV)/.browser: $(VENV)/.dev
	@$(PIP) --editable '.[browser]'
	@touch $@

test-browser: $(VENV)/.browser  ## the report in a real Chromium (Debian's: apt-get install chromium; or set CHROMIUM)
	@$(PY) -m pytest -m browser tests/report

test-ray: $(VENV)/.ray  ## the Ray executor on a cluster of several nodes on this machine
	@$(PY) -m pytest -m ray tests/run/cluster

test-faults: $(VENV)/.dev  ## the long fault-injection suite: 300 kills, every write, FUZZ=100000 fuzzed files
	@$(PY) -m pytest -m faults

fuzz: $(VENV)/.dev  ## strangers' files, mutated as coverage leads: SECONDS=60 for each of four readers
	@$(PIP) --editable '.[fuzz]'
	@$(PY) tests/support/fuzz.py --atheris $(or $(SECONDS),60)

mutants: $(VENV)/.dev  ## small changes of the program that no test notices: NUMBER=300 SEED=1 ONLY=weights/merge.py
	@$(PY) tests/support/mutants.py --number $(or $(NUMBER),300) --seed $(or $(SEED),1) $(if $(ONLY),--only $(ONLY))

check: $(VENV)/.dev  ## lint, format, types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(VENV)/.dev  ## put the code into form
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(VENV)/.dev  ## one table: what it costs, beside what a user would do instead
	-@$(MAKE) --silent $(VENV)/.browser  # for the report's first paint; the rest is measured without it
	@$(PY) -m benchmarks

bench-world: $(VENV)/.dev  ## do the demo's LoRAs add their characters? (reads the pictures, not the model)
	@$(PY) -m tools.demo_world bench

$(VENV)/.docs: $(VENV)/.light
	@echo "installing MkDocs into $(VENV)"
	@$(PIP) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs  ## the documentation as a site, in site/
	@$(PY) -m orchestrator.cli.reference docs/reference
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "site/index.html"

tensorboard: $(VENV)/.embedded  ## loss and learning rates of all runs
	@$(PY) -m tensorboard.main --logdir runs

clean:  ## remove environments and caches; runs/ stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
