# The commands of this project; README.md explains each. Every target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/.dagster
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONDONTWRITEBYTECODE # programs are started by the hundred, and each would compile the package anew

.PHONY: help setup samples demo demo-s3 dev test check format bench bench-full chaos chaos-training fuzz schema clean

help:
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), f"Python 3.11 is needed, PYTHON={sys.executable} is {sys.version}"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: .venv/installed ## virtual environment with pinned dependencies

samples: setup ## sample corpus and base model, checked by SHA-256
	$(BIN)/trainpipe samples

.PHONY: $(DAGSTER_HOME)/dagster.yaml
$(DAGSTER_HOME)/dagster.yaml: # written anew each time: the environment decides between SQLite and Postgres
	mkdir -p $(DAGSTER_HOME)
	cat $(if $(DAGSTER_POSTGRES_HOST),dagster.postgres.yaml) dagster.yaml > $@

demo demo-s3: export PYTHONWARNINGS = ignore:Function,ignore:Parameter # Dagster's own, on its way to other commands
demo: samples $(DAGSTER_HOME)/dagster.yaml ## the whole pipeline on the movie reviews, from landing to report
	$(BIN)/trainpipe land data/samples/corpora/movies.csv
	$(BIN)/dagster asset materialize -m trainpipe_assets.definitions --select '*'
	$(BIN)/trainpipe status

demo-s3: samples $(DAGSTER_HOME)/dagster.yaml ## the same with lake and landing folder on a real S3 server, SeaweedFS in data/s3
	$(BIN)/python -m trainpipe_tests.s3_server data/s3 $(SHELL) -e -c '\
	  $(BIN)/trainpipe land data/samples/corpora/movies.csv; \
	  $(BIN)/trainpipe doctor; \
	  $(BIN)/dagster asset materialize -m trainpipe_assets.definitions --select "*"; \
	  $(BIN)/trainpipe status'

dev: samples $(DAGSTER_HOME)/dagster.yaml ## the Dagster UI with daemon, sensors on: http://localhost:3000
	$(BIN)/dagster dev -w workspace.yaml --host 127.0.0.1 --port $(or $(PORT),3000)

test: samples ## all tests, one file at once more than there are cores, four at most; TESTS=path narrows them to one after the other
	$(BIN)/python -m pytest $(or $(TESTS),--numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0)

check: setup ## linter, types, import rules, links of the docs, definitions
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m trainpipe_tests.check_docs
	$(BIN)/dg check defs && $(BIN)/dg check yaml

format: setup ## put the code into the project's format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup ## measure speed against its peers, into docs/benchmarks.md and benchmarks/latest.json
	$(BIN)/trainpipe samples --assistant
	$(BIN)/python -m benchmarks

bench-full: setup ## the same with ten million rows, 10,000 files, 5 GB and whole epochs: hours; ONLY=data-plane narrows it, and is then only printed
	$(BIN)/trainpipe samples --assistant
	$(BIN)/python -m benchmarks --full $(if $(ONLY),--only $(ONLY))

chaos: setup ## kill -9 at 500 random instants from landing to tokens, on local disk and on S3, and look for lost rows; KILLS=n
	$(BIN)/python -m trainpipe_tests.chaos --kills $(or $(KILLS),500)

fuzz: samples ## read 10,000 damaged files of every format, and look for lost records, hangs and memory; FILES=n
	$(BIN)/python -m trainpipe_tests.fuzz --files $(or $(FILES),10000)

chaos-training: setup ## kill -9 at 100 random instants of a training, on one process, on two, on two with a share of the model each, and of one of adapters, and compare the bytes; KILLS=n
	for processes in "1" "2" "2 --sharding full" "1 --lora"; do $(BIN)/python -m trainpipe_tests.training_chaos --kills $(or $(KILLS),100) --processes $$processes; done

schema: setup ## write the JSON schema of defs.yaml for editors
	$(BIN)/trainpipe schema > docs/defs.schema.json

clean: ## remove what demo, dev and tests made, but not the samples
	rm -rf .dagster data/lake data/landing data/scratch data/s3 artifacts
