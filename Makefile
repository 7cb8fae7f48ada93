# One-word commands. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= 2
RUNS_PER_GPU ?= 8
VENV := .venv
# dvc runs `python`: it must be the venv's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
READY := $(VENV)/.ready

.PHONY: help setup repro sweep paper test test-isa bench faults fuzz upgrade check status publish ui clean-state

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(READY)  ## .venv with the pinned packages, and lmplz
$(READY): pyproject.toml constraints.txt tools/build_lmplz.sh
	$(PYTHON) -m venv $(VENV)
	tools/build_lmplz.sh $(VENV)/bin/python $(VENV)/bin
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[all,dev]'
	touch $@

repro: $(READY)  ## bring the whole experiment up to date (JOBS=2 runs side by side, RUNS_PER_GPU=8 on a GPU), then show the results
# exec: so it is make's own child, which SIGTERM to make reaches
	@exec python -m pipelines.machine.repro --jobs $(JOBS) --runs-per-gpu $(RUNS_PER_GPU) --results

SWEEP := sweep.yaml
sweep: $(READY)  ## train the settings of sweep.yaml and compare them on the validation set (JOBS=2, SWEEP=sweep-remedies.yaml)
	dvc repro preprocess@sotu
	python -m pipelines.machine.sweep --jobs $(JOBS) --sweep $(SWEEP)

DATASET := ptb
paper: $(READY)  ## the paper's systems at the paper's size on a GPU (DATASET=ptb, FLAGS='--text ptb.zip --minutes 30'; run it again to go on)
	python -m pipelines.machine.paper --dataset $(DATASET) $(FLAGS)

status: $(READY) ## where every run of the grid stands
	@python -m pipelines.machine.status

publish: $(READY) ## make MLflow show what the run directories say (make repro does it)
	python -m components.publish --runs runs --reports reports --settings settings/report.json

ui: $(READY)     ## browse the runs in MLflow, on this machine only
	python -m tracking.ui

check: $(READY)  ## lint, types, import contract
	ruff check .
	hadolint docker/Dockerfile
	mypy
	lint-imports

test: check      ## check, then the tests (JOBS=2 files side by side)
	OMP_NUM_THREADS=1 python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The tests that compute. `default` is furthest from what a processor chooses by itself: plain instructions, neither AVX nor
# fused multiply-adds, so that sums are rounded otherwise; no test may decide by that.
NUMERIC := corpus dilated_vae equation_18 estimators evaluation explore generation grammar_probe latent mutual_information \
  networks objectives posteriors remedies repeated robustness sa_vae selection softmax systems training variants z_forcing
ISA := default
test-isa: $(READY) ## the numeric tests under another instruction set (ISA=default or avx2)
	ATEN_CPU_CAPABILITY=$(ISA) ONEDNN_MAX_CPU_ISA=$(if $(filter avx2,$(ISA)),AVX2,SSE41) OMP_NUM_THREADS=1 \
	  python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(NUMERIC:%=tests/textvae/test_%.py) \
	  tests/components/test_examples.py

bench: $(READY)  ## the project's speed beside a plain reference's and the processor's limit, one table in 10 minutes
	@OMP_NUM_THREADS=1 python -m benchmarks $(FLAGS)

faults: $(READY) ## kills, full disks, spoilt files: is anything lost? Hours; it goes on where it stopped (FLAGS='--minutes 10')
	OMP_NUM_THREADS=1 python -m tests.fault_injection $(FLAGS)

upgrade: $(READY) ## newest versions into constraints.txt, if the suite passes with them (FLAGS=--dry-run)
	python tools/upgrade.py $(FLAGS)
INPUTS := 100000
SEED := 0
fuzz: $(READY)   ## made-up inputs to every reader, half an hour (INPUTS=100000 SEED=0)
	OMP_NUM_THREADS=1 python tests/fuzz.py --inputs $(INPUTS) --seed $(SEED)

images: $(READY) ## the images of this commit with podman or docker (IMAGES='data train', FLAGS='--base ...')
	python -m pipelines.containers.images $(IMAGES) $(FLAGS)

test-containers: $(READY) ## the images on a fresh Debian, and the pipeline in them (root; podman, debootstrap)
	tests/containers.sh

clean-state: $(READY) ## forget unfinished trainings
	rm -rf $${TEXTVAE_STATE:-.state}
