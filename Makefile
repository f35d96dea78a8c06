# `make check` runs what CI runs. Everything runs in .venv, which `make setup` creates.

PYTHON ?= python3
ARGS ?=
OUT := $(or $(OUT),runs/demo-$(shell date +%Y%m%d-%H%M%S))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CVAE := $(addprefix tests/benchmarks/,quadrants.py labels.py semi_supervised.py)
FAULTS := $(addprefix tests/benchmarks/,faults.py races.py full_disk.py)
MORE = $(filter-out %/speed.py %/gpu.py $(FAULTS) $(CVAE),$(wildcard tests/benchmarks/[a-z]*.py))

.DEFAULT_GOAL := help
.PHONY: help setup demo web test test-slow bench bench-more bench-faults bench-gpu bench-nll bench-cvae lint format-check format types check dist clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the pinned versions (choose with PYTHON=python3.12)

# The stamp is written last, so an interrupted set-up starts again. A .venv without bin/pip
# is incomplete and is created again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "keras_vae needs Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12." \
	    "Received: PYTHON=$(PYTHON), $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV); TensorFlow is large, so the first time takes minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,export]'
	@touch $@

demo: setup ## train on digits, write the report, export, verify the exports (OUT=DIR)
	$(BIN)/keras-vae train digits --out $(OUT) $(ARGS)
	$(BIN)/keras-vae export $(OUT) --to serving --name digits
	$(BIN)/keras-vae export $(OUT) --to litert
	$(BIN)/keras-vae verify $(OUT)/serving/digits/1 $(OUT)
	$(BIN)/keras-vae verify $(OUT)/model.tflite $(OUT)

# Shows the newest demo, or another run: make web RUN=runs/photos PORT=8080
DONE := $(lastword $(sort $(wildcard runs/demo-*/report.html)))
PORT ?= 8000
web: RUN ?= $(if $(DONE),$(dir $(DONE)),$(OUT))
web: setup ## explore the latent space of a run in the browser (RUN=DIR PORT=8000)
	@test -n "$(DONE)" -o "$(RUN)" != "$(OUT)" || $(MAKE) demo OUT=$(RUN)
	@rm -rf build/web
	$(BIN)/keras-vae export $(RUN) --to litert --batch-size 1 --out build/web/model.tflite
	$(BIN)/python export/web/examples.py $(RUN) build/web/examples.json
	cd export/web && npm install --no-audit --no-fund
	node export/web/build.mjs build/web
	@echo "Open http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory export/web/dist

test: setup ## run all fast tests and the docstring examples
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: setup ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: setup ## compare speeds, write docs/speed.md; an hour (ARGS=--quick: 9 minutes)
	$(BIN)/python tests/benchmarks/speed.py --out docs/speed.md $(ARGS)

bench-more: setup ## measure replicas and workers, memory, exported models, Frey Face
	@set -e; for script in $(MORE); do echo "$$script"; $(BIN)/python $$script $(ARGS); done

bench-gpu: setup ## on a host with GPUs: test them, compare speeds; 8 minutes
	$(BIN)/python tests/benchmarks/gpu.py $(ARGS)

bench-faults: setup ## kill training, run two commands on one run, fill the disk; 40 minutes
	$(BIN)/python tests/benchmarks/faults.py $(ARGS)
	$(BIN)/python tests/benchmarks/races.py
	$(BIN)/python tests/benchmarks/full_disk.py

bench-cvae: setup ## train conditional models on MNIST, write docs/conditional.md; an hour
	@mkdir -p build && echo "# Conditional models on MNIST (\`make bench-cvae\`)" >build/cvae.md
	@set -e; for script in $(CVAE); do \
	  echo "$$script" >&2; echo >>build/cvae.md; $(BIN)/python $$script >>build/cvae.md; done
	@mv build/cvae.md docs/conditional.md

# The one-layer model of Burda et al. (2016) with a shorter schedule. An interrupted run
# resumes where it stopped.
bench-nll: setup ## test NLL on MNIST, half an hour; needs KERAS_VAE_DATA or a network
	$(BIN)/keras-vae train mnist --resume --out runs/bench-nll --network mlp --hidden 200,200 \
	  --activation tanh --latent 50 --beta-schedule linear --beta-steps 12000 --epochs 400 \
	  --batch 100 --learning-rate 0.002 --lr-schedule cosine --validation 0 \
	  --num-samples 5000 --nll-rows 10000 --baselines none $(ARGS)

lint: setup ## run ruff's checks
	$(BIN)/ruff check .

format-check: setup ## fail if `make format` would change a file
	$(BIN)/ruff format --check .

format: setup ## format the code and sort the imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

types: setup ## run mypy
	$(BIN)/mypy keras_vae

check: ## run what CI runs: lint, format-check, types, test, a short demo
	@.ci/run

dist: setup ## build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## remove build outputs and caches, but not .venv
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
