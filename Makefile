# Everything on a fresh machine with Python 3.11 or newer, pip and a package index: each target sets up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CORES ?= all

.PHONY: study test test-slow test-cluster lint format bench bench-peers docs lock clean

study: $(READY)  ## the embedded study, from text to report
	$(BIN)/snakemake --cores $(CORES)

test: $(READY)  ## all tests but the slow ones and those on a cluster
	$(BIN)/python -m pytest -m "not slow and not cluster" -n 2 --dist loadgroup --no-loadscope-reorder --durations=15

test-slow: $(READY)  ## the slow tests
	$(BIN)/python -m pytest -m slow

test-cluster: $(READY)  ## a study on a Slurm that is started here, by root on Debian; elsewhere skipped with a reason
	$(BIN)/python -m pytest -m cluster -rs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

bench: $(READY)  ## every benchmark, quickly
	set -e; for bench in tests/benchmarks/*.py; do PYTHONPATH=workflow $(BIN)/python $$bench --quick; done

bench-peers: .venv-peers/.ready  ## SAELens and other libraries that tests and benchmarks compare with, in an environment of its own

docs: $(READY)  ## what is generated: the schema, and the references of config, tables and claims
	PYTHONPATH=workflow $(BIN)/python -m actspace.config_docs
	PYTHONPATH=workflow $(BIN)/python -m actspace.reference_docs

lock:  ## pin the newest versions that pyproject.toml allows; torch stays at the version named here
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0 && .venv-lock/bin/pip install --quiet .[dev]
	.venv-lock/bin/python envs/lock.py > requirements.txt
	rm -rf .venv-lock build

clean:  ## remove the results of the embedded study
	rm -rf results/embedded .snakemake

.venv-peers/.ready: tests/peers/saelens.txt tests/peers/no_deps.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $$(grep ^torch== $<)
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(word 2,$^)
	touch $@

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
