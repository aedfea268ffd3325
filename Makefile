# Everything a person or a machine does here is one of these words. Each sets up what it needs.
VENV   ?= .venv
PYTHON ?= python3
PEERS  := .venv-peers
BIN    := $(VENV)/bin

# Small models run fastest on one thread per process; two threads beside a busy neighbour cost 10-400x.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check format bench bench-peers docs clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.stamp: pyproject.toml constraints.txt requirements-dev.txt
	@echo "setting up $(VENV) (once, about a minute)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gradleak needs Python 3.11 or newer; say PYTHON=python3.12, for instance")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.stamp ## Audit a small network on bundled faces; write demo/report.html
	@$(BIN)/gradleak demo --out demo

test: $(VENV)/.stamp ## Run the tests
	@$(BIN)/python -m pytest -n 2

check: $(VENV)/.stamp ## Format, lint, types, import contract
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp ## Put every file into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.stamp ## Measure the solvers (minutes)
	@$(BIN)/python -m benchmarks

$(PEERS)/.stamp: pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	@echo "setting up $(PEERS) (once, about a minute)" >&2
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -q -r benchmarks/requirements-peers.txt
	@touch $@

bench-peers: $(PEERS)/.stamp ## Compare with breaching, in an environment of its own (minutes)
	@$(PEERS)/bin/python -m benchmarks.peers $(ARGS)

docs: $(VENV)/.stamp ## Build the docs into docs/_build, every warning an error
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

clean: ## Remove what was built
	@rm -rf $(VENV) $(PEERS) docs/_build .mypy_cache .ruff_cache .hypothesis demo
