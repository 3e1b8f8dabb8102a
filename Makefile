# Two commands set everything up: `make lab` to learn, `make test` to run what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
BOOK := jupyter-book build . --config book/_config.yml --toc book/_toc.yml --path-output book -W -n --keep-going --all
LAB_ARGS ?=
RESULTS ?=
# Processes of the tests. One file is for one process: fixtures and caches of a file are made once, a kernel runs a chapter.
JOBS ?= 2
PARALLEL := --numprocesses $(JOBS) --dist loadfile
STUDENT_ARGS ?=
export OMP_NUM_THREADS ?= 1

.PHONY: help lab demo test lint unit chapters book package notebooks results status site-check student benchmarks clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit("qlearn needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/learn: $(VENV)/created pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; a minute or two)"
	$(PIP) torch
	$(PIP) --editable '.[lab]'
	@touch $@

$(VENV)/develop: $(VENV)/learn
	$(PIP) --editable '.[dev,book]'
	@touch $@

# Chapters link to ../book: JupyterLab serves the whole project.
lab: $(VENV)/learn  ## open the course in JupyterLab (options: LAB_ARGS="--no-browser --allow-root")
	$(BIN)/jupyter lab --ServerApp.root_dir=. $(LAB_ARGS) notebooks/00_start_here.ipynb

demo: $(VENV)/learn  ## quantize the bundled network: float, int8 per tensor, int8 per channel
	$(BIN)/qlearn quantize tiny_mobilenet --weights per_tensor per_channel

test: lint unit chapters book package  ## everything that CI runs

lint: $(VENV)/develop  ## style, types, spelling, checksums
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell qlearn tests tools plugins book docs README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/python tools/checksums.py check

unit: $(VENV)/develop  ## tests and doctests
	$(BIN)/python -m pytest $(PARALLEL) --quiet --durations=8
	$(BIN)/python -m doctest --option ELLIPSIS book/errata.md

chapters: $(VENV)/develop  ## every notebook cell, its output compared
	$(BIN)/python -m pytest notebooks --override-ini=addopts= $(PARALLEL) --quiet --nbval --nbval-current-env \
		--nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval.cfg

book: $(VENV)/develop  ## the website, warnings as errors: book/_build/html
	@rm -rf book/_build/html  # pages of modules that are gone would stay
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BOOK)
	$(BIN)/python tools/site_links.py

site-check: book  ## links and accessibility of the website, in a browser (needs npm and Chromium)
	cd tools/site && PUPPETEER_SKIP_DOWNLOAD=1 npm ci --silent && npm run --silent links && npm run --silent accessibility

package: $(VENV)/develop  ## wheel and sdist, tested from the wheel in a clean environment
	$(BIN)/python tools/package_check.py --jobs $(JOBS)

notebooks: $(VENV)/develop  ## execute the chapters again and write their outputs
	$(BIN)/python tools/notebooks.py run

status: $(VENV)/develop  ## run every chapter alone, and write the status page with its time and memory
	$(BIN)/python tools/status.py

student: $(VENV)/develop  ## copies of the chapters without solutions, in student/ (a course for nbgrader: STUDENT_ARGS=--grade)
	$(BIN)/python tools/student.py $(STUDENT_ARGS)

results: $(VENV)/develop  ## the long computations again, over an hour (one: RESULTS=table1; what there is: RESULTS=list)
	$(BIN)/python tools/results.py $(if $(filter list,$(RESULTS)),list,run $(foreach name,$(RESULTS),'$(name)'))

benchmarks: $(VENV)/develop  ## ratios measured on this machine
	$(BIN)/python -m pytest benchmarks --override-ini=addopts= --import-mode=importlib --benchmark-only

clean:  ## remove what the other targets made, the environment included
	rm -rf $(VENV) build dist book/_build book/_vendor tools/site/node_modules .pytest_cache .mypy_cache .ruff_cache .benchmarks
