# `make help` lists the commands. Each does its own set-up, once: finished steps leave a file in .venv/ready.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
READY := .venv/ready
NODE := tests/clients/node
PIP := $(BIN)/pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: run test check bench bench-instructions bench-pages bench-peers prove chaos docs pure help

run: $(READY)/native ## Start the gateway, with simulated upstreams where no provider key is set (ARGS="--port 9000")
	@$(BIN)/vipcloud serve $(ARGS)

test: $(READY)/dev $(READY)/native $(READY)/node $(READY)/clients check ## Check the code, then run every test (ARGS="tests/http -k drain")
	@requirements/debian curl=curl chromium=chromium postgres=postgresql redis-server=redis-server
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),tests/all $(BIN)/python)

check: $(READY)/dev ## Format, lint, types, and the rules of the house, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy bench
	$(BIN)/mypy proofs
	$(BIN)/python -m pytest tests/house

bench: $(READY)/dev $(READY)/native ## What a request costs beside nginx, in about 3 minutes (ARGS="--rounds 1")
	@requirements/debian nginx=nginx-light wrk=wrk taskset=util-linux redis-server=redis-server
	@$(BIN)/python bench/run.py $(ARGS)

bench-instructions: $(READY)/dev $(READY)/native ## Instructions of a request and of a chunk, by library, in about 2 minutes, whatever else runs
	@requirements/debian nginx=nginx-light wrk=wrk taskset=util-linux valgrind=valgrind
	@$(BIN)/python bench/instructions.py $(ARGS)

bench-pages: $(READY)/dev $(READY)/native ## How long each page of the website takes with 100,000 requests in the books
	@requirements/debian taskset=util-linux
	@$(BIN)/python bench/pages.py $(ARGS)

bench-peers: $(READY)/dev $(READY)/native ## The same work through LiteLLM's proxy and Portkey's gateway, installed on the spot
	@requirements/debian nginx=nginx-light wrk=wrk taskset=util-linux node=nodejs npm=npm
	@$(BIN)/python bench/peers.py $(ARGS)

prove: $(READY)/dev $(READY)/native ## Kills, restarts, cancellations, failing disks: that every cent is right, in about 15 minutes (docs/trust.md)
	$(BIN)/python proofs/simulation.py
	$(BIN)/python proofs/disk.py
	$(BIN)/python proofs/kills.py
	$(BIN)/python proofs/restarts.py

chaos: $(READY)/dev $(READY)/native ## A minute of random faults from every upstream; ends with a table (ARGS="--seconds 300 --seed 2")
	@$(BIN)/python proofs/chaos.py $(ARGS)

docs: $(READY)/run ## Write docs/reference anew from the code
	$(BIN)/python -m vipcloud.cli.reference

pure: $(READY)/run ## Remove the compiled modules: the interpreter alone, for debugging; `make run` compiles them again
	@$(BIN)/python requirements/native.py --remove
	@rm -f $(READY)/native

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

$(BIN)/python:
	@requirements/venv $(PYTHON)

$(READY)/run: requirements/runtime.lock pyproject.toml | $(BIN)/python
	@echo "Setting up .venv from requirements/runtime.lock ..." >&2
	@$(PIP) --require-hashes --no-deps --requirement requirements/runtime.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@mkdir -p $(READY) && touch $@

$(READY)/native: $(READY)/run requirements/native.lock requirements/native.py $(shell find src -name '*.py')
	@$(PIP) --require-hashes --no-deps --requirement requirements/native.lock
	@$(BIN)/python requirements/native.py
	@touch $@

$(READY)/dev: requirements/dev.lock $(READY)/run
	@echo "Adding what tests need from requirements/dev.lock ..." >&2
	@$(PIP) --require-hashes --no-deps --requirement requirements/dev.lock
	@touch $@

$(READY)/clients: requirements/clients.lock | $(BIN)/python
	@echo "Setting up .venv/clients from requirements/clients.lock ..." >&2
	@$(BIN)/python -m venv .venv/clients
	@.venv/clients/bin/$(notdir $(PIP)) --require-hashes --no-deps --requirement requirements/clients.lock
	@mkdir -p $(READY) && touch $@

$(READY)/node: $(NODE)/package-lock.json $(NODE)/package.json $(READY)/dev
	@requirements/debian node=nodejs npm=npm
	@cd $(NODE) && npm ci --silent
	@touch $@
