# Everything that is done with Tollmesh. Each target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := deploy/node
DEBIAN := deploy/debian
DIST := dist
NPM := $(shell command -v npm || echo "$(CURDIR)/$(BIN)/npm")
# npm from the package index puts node beside the interpreter; programs of npm packages look for it.
export PATH := $(PATH):$(CURDIR)/$(BIN)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

PROGRAMS := $(VENV)/.programs
NODE_RUNTIME := $(NODE)/node_modules/.runtime
NODE_ALL := $(NODE)/node_modules/.all
DEBIAN_ALL := $(DEBIAN)/root/.all
API := $(VENV)/.api

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("Tollmesh needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=python3.11 or newer." if sys.version_info < (3, 11) else 0)'
	@echo "Making the virtual environment $(VENV)/ ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@touch $@

$(PROGRAMS): $(VENV)/.created pyproject.toml protos/pyproject.toml constraints.txt
	@echo "Installing what Tollmesh needs into $(VENV)/ ..."
	@PYTHONWARNINGS=ignore $(PIP) install --constraint constraints.txt --editable protos --editable . --group dev
	@touch $@

.PHONY: install
install: $(PROGRAMS) ## install everything into .venv/ (the command: .venv/bin/tollmesh)

# Not "npm ci": it demands that the lock names every platform's optional packages, which a registry
# mirror for one platform does not have. --no-save leaves the lock as it is.
NPM_INSTALL = cd $(NODE) && "$(NPM)" install --no-save --silent

$(NODE_RUNTIME): $(NODE)/package-lock.json | $(PROGRAMS)
	@command -v npm >/dev/null || $(PIP) install --constraint constraints.txt --group node
	@echo "Installing the local chain (anvil) into $(NODE)/ ..."
	@$(NPM_INSTALL) --omit=dev
	@touch $@

$(NODE_ALL): $(NODE)/package-lock.json | $(PROGRAMS)
	@command -v npm >/dev/null || $(PIP) install --constraint constraints.txt --group node
	@echo "Installing the programs that the tests run (anvil, buf, auto-dag-data) into $(NODE)/ ..."
	@$(NPM_INSTALL)
	@touch $@ $(NODE_RUNTIME)

$(DEBIAN_ALL): $(DEBIAN)/install
	@echo "Fetching the servers that the tests run (nginx, Caddy) into $(DEBIAN)/root/ ..."
	@$(DEBIAN)/install $(DEBIAN)/root nginx caddy

$(API): $(PROGRAMS)
	@$(PIP) install --constraint constraints.txt --group api
	@touch $@

.PHONY: programs
programs: $(NODE_ALL) $(DEBIAN_ALL) ## install the programs that the tests run beside ours

.PHONY: demo
demo: $(NODE_RUNTIME) ## the main job, start to end, on this machine: publish, download twice, check the bill
	@$(BIN)/tollmesh demo

.PHONY: up
up: $(NODE_RUNTIME) ## leave a mesh running and print what to try
	@$(BIN)/tollmesh up --detach

.PHONY: down
down: $(PROGRAMS) ## stop the mesh that make up started; its data stays
	@$(BIN)/tollmesh down

.PHONY: test
test: $(NODE_ALL) $(DEBIAN_ALL) $(API) ## every check: layout, lint, types, protos, unit, mesh and a short chaos run
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -m "not fdb" --numprocesses 3 --dist loadfile

.PHONY: test-http
test-http: $(NODE_ALL) $(DEBIAN_ALL) ## the public suite for HTTP caches, REDbot, a model of RFC 9110, nginx; HTTP_SUITE=directory for another copy
	@$(BIN)/python -m pytest tests/edge/origins/test_cache_suite.py tests/edge/origins/test_redbot.py \
		tests/edge/test_redbot_objects.py tests/edge/test_delivery_model.py -q \
		$(if $(HTTP_SUITE),--http-suite $(HTTP_SUITE)) $(if $(HTTP_TEST),--http-test $(HTTP_TEST))

.PHONY: lint
lint: $(PROGRAMS) ## ruff, rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: type
type: $(PROGRAMS) ## mypy, strict
	@$(BIN)/mypy

.PHONY: check
check: lint type protos-check ## lint, type and protos-check

.PHONY: protos
protos: $(PROGRAMS) ## generate the stubs beside the protos
	@$(BIN)/python protos/generate.py

.PHONY: protos-check
protos-check: $(PROGRAMS) ## generate again and demand no difference
	@$(BIN)/python protos/generate.py --check

.PHONY: protos-baseline
protos-baseline: $(NODE_ALL) ## record the contracts as landed: later ones must not break them
	@$(NODE)/node_modules/.bin/buf build protos -o protos/baseline.binpb --exclude-source-info

.PHONY: stubs
stubs: $(PROGRAMS) ## build the wheel of the stubs that other teams install, into dist/
	@rm -rf protos/build
	@$(BIN)/python -m build --installer pip --wheel --outdir $(DIST) protos >/dev/null
	@rm -rf protos/build
	@ls $(DIST)/*.whl

.PHONY: bench-credits
bench-credits: $(PROGRAMS) ## debits a second beside no-op calls, PostgreSQL and Redis, as ratios
	@$(PIP) install --constraint constraints.txt --group bench
	@$(BIN)/python -m bench.credits

.PHONY: bench-edge
bench-edge: $(PROGRAMS) $(DEBIAN_ALL) ## hits of the edge beside nginx and beside itself without admission, as ratios
	@$(BIN)/python -m bench.edge $(EDGE_OPTIONS)

.PHONY: bench-fdb
bench-fdb: $(PROGRAMS) ## a hot account on the cluster of FDB_CLUSTER_FILE, beside a naive transaction a debit
	@$(BIN)/python -m bench.fdb $(FDB_OPTIONS)

.PHONY: chaos
chaos: $(PROGRAMS) ## kill the credit service 50 times under load and account for every debit
	@$(BIN)/python -m pytest tests/mesh/test_chaos.py --chaos-kills 50 -s

.PHONY: chaos-edge
chaos-edge: $(PROGRAMS) ## kill an edge 50 times under load; take each service away for 30 s
	@$(BIN)/python -m pytest tests/edge/robust/test_kills.py tests/edge/robust/test_outages.py --edge-kills 50 --outage-s 30 -s

.PHONY: soak
soak: $(PROGRAMS) ## prove the ledger with new seeds for SOAK_SECONDS (300): histories, kills, simulations, the model
	@$(BIN)/python -m tests.support.soak

.PHONY: test-fdb
test-fdb: $(PROGRAMS) ## the store's and the ledger's suites on the cluster of FDB_CLUSTER_FILE
	@test -n "$${FDB_CLUSTER_FILE:-}" || { echo "make test-fdb: set FDB_CLUSTER_FILE to the cluster file of a running FoundationDB cluster" >&2; exit 1; }
	@$(BIN)/python -m pytest -m fdb

.PHONY: clean
clean: ## remove what make made here (not the mesh's data in .tollmesh/)
	@rm -rf $(VENV) dist build *.egg-info protos/build protos/*.egg-info $(NODE)/node_modules $(DEBIAN)/root
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
