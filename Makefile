# Everything a person or a machine runs. `make help` lists it.
#
#   make serve PORT=8001 CONF="model=sam2.1_hiera_tiny image_size=512"
#   make test ARGS="tests/unit/prompts -x"

VENV    ?= .venv
HOST    ?= 127.0.0.1
PORT    ?= 8000
SAMPLE  := studies/sample
STUDIES ?= $(SAMPLE)
# Options of the app, as name=value pairs.
CONF    ?=
# Options of the command that a target runs.
ARGS    ?=
# Tests that run at once, file by file; 0 for one after the other in this process, as a debugger needs it.
JOBS    ?= 2

APP    := apps/biosam2
# `monailabel` starts plain `python`, so the environment has to come first on PATH.
IN_VENV := PATH="$(abspath $(VENV))/bin:$$PATH" PYTHONPATH="$(abspath $(APP)):$(CURDIR)"
# Progress is for a person who waits, not for a log.
QUIET   := $(if $(MAKE_TERMOUT),,-q)
PIP     := $(VENV)/bin/python -m pip --disable-pip-version-check install $(QUIET) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv install install-dev serve serve-dicom sample demo fetch evaluate batch report test test-viewers test-faults lint format bench bench-accuracy \
	bench-finetuning bench-training bench-scoring bench-memory bench-clients bench-signals bench-one-prompt bench-one-prompt-finetuned bench-video bench-propagation bench-auto-head bench-active-learning docs api-key audit hashes clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- Environment ---

# The first interpreter that really runs, is 3.10 to 3.12 and can make environments; PYTHON=... overrides.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	>/dev/null 2>&1 && echo $$python && break; done)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11 or 3.12 with the venv module was found." \
		"Install one (on Debian and Ubuntu: python3 and python3-venv) or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

# HASHES=1 installs the files whose SHA-256 stands in requirements.lock, and no others.
HASHES  ?=
LOCKED  := $(VENV)/bin/python -m pip --disable-pip-version-check install $(QUIET) --require-hashes --no-deps --no-build-isolation

# sam2 comes as source. With torch there first and no build isolation, pip need not download torch twice to build it.
$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing the server (about 3 GB to download, 8 GB on disk; a few minutes) ..."
ifeq ($(HASHES),)
	@$(PIP) setuptools wheel torch torchvision numpy
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation -r requirements.txt
else
	@awk '/^[^ ]/ {build = /^(setuptools|wheel)==/} build' requirements.lock > $(VENV)/build.lock
	@$(LOCKED) -r $(VENV)/build.lock
	@SAM2_BUILD_CUDA=0 $(LOCKED) -r requirements.lock
endif
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing the tools for tests, lint and benchmarks ..."
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-viewers: requirements-viewers.txt $(VENV)/.installed-dev
	@$(PIP) -r requirements-viewers.txt
	@touch $@

$(VENV)/.installed-ray: requirements-ray.txt $(VENV)/.installed
	@$(PIP) -r requirements-ray.txt
	@touch $@

venv: $(VENV)/bin/python ## Make the virtual environment.
install: $(VENV)/.installed ## Install the server.
install-dev: $(VENV)/.installed-dev ## Install the server and the tools for development.

# --- Run ---

$(SAMPLE)/.complete: $(wildcard sample_study/*.py) | $(VENV)/.installed
	@$(IN_VENV) python -m sample_study --output $(@D)
	@touch $@

sample: $(SAMPLE)/.complete ## Generate the sample study.

serve: install $(if $(filter $(SAMPLE),$(STUDIES)),sample) ## Start the server (HOST, PORT, STUDIES, CONF="name=value ...").
	@$(IN_VENV) python -m monailabel.main start_server --app $(APP) --studies "$(STUDIES)" --host $(HOST) --port $(PORT) \
		$(foreach pair,$(CONF),--conf $(subst =, ,$(pair))) $(ARGS)

serve-dicom: install ## Serve sample series from Orthanc with OHIF (HOST, PORT, CONF; needs Orthanc).
	@$(IN_VENV) python -m sample_study.serve_dicom --host $(HOST) --port $(PORT) \
		$(foreach pair,$(CONF),--conf $(subst =, ,$(pair))) $(ARGS)

demo: install sample ## Prompt the sample study over HTTP, print Dice and latencies, draw a picture.
	@$(IN_VENV) python -m demo --host $(HOST) --port $(PORT) $(ARGS)

fetch: install ## Download weights: make fetch MODEL=sam2.1_hiera_tiny
	@cd $(APP) && $(IN_VENV) python -m lib.engine.download $(MODEL) $(ARGS)

evaluate: install ## Measure weights as the BioSAM-2 paper does: make evaluate ARGS="--data FOLDER"
	@$(IN_VENV) python -m lib.evaluation $(ARGS)

# RAY=auto: the Ray cluster of this machine; local: one for this run alone.
RAY     ?=
MODEL   ?=
batch: install $(if $(RAY),$(VENV)/.installed-ray) ## Work on an archive: make batch MODEL=biosam2_auto, embed or score (STUDIES, CONF; RAY=auto on a cluster).
	@$(IN_VENV) python -m lib.batch --app "$(abspath $(APP))" --studies "$(STUDIES)" $(if $(MODEL),--model $(MODEL)) \
		$(if $(RAY),--ray $(RAY)) $(foreach pair,$(CONF),--conf $(subst =, ,$(pair))) $(ARGS)

report: install ## Write outputs/report.html: labels, what the model is worth, where it is least sure.
	@$(IN_VENV) python -m lib.dashboard --studies "$(STUDIES)" $(ARGS)

# --- Check ---

# Files in order of their folders: servers first and short files last, so that no core waits at the end.
test: install-dev ## Run the tests.
	@$(IN_VENV) python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Packages of the system are installed for root; anybody else is told which.
test-viewers: $(VENV)/.installed-viewers ## Run the tests in real viewers: OHIF in Chromium, Orthanc (13 minutes).
	@$(IN_VENV) python -m tests.viewers.packages
	@$(IN_VENV) python -m pytest tests/viewers $(ARGS)

test-faults: install-dev ## Kill servers and fuzz their routes (15 minutes; ARGS="--kills 5 --mutations 200").
	@$(IN_VENV) python -m pytest tests/faults -n 2 --dist loadfile -rP --durations 5 $(ARGS)

lint: install-dev ## Check style, format and types.
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) mypy

format: install-dev ## Put the code in the project's format.
	@$(IN_VENV) ruff check --fix .
	@$(IN_VENV) ruff format .

DEVICE ?= cpu
bench: install-dev ## Measure latency and memory against MONAI Label's own SAM 2 tasks (DEVICE=cuda on a GPU).
	@$(IN_VENV) python -m benchmarks.latency --device $(DEVICE) $(ARGS)

bench-accuracy: install-dev ## Measure accuracy on real images against classical methods.
	@$(IN_VENV) python -m benchmarks.accuracy $(ARGS)

bench-finetuning: install-dev ## Measure what Train gains on patients that were held out (about 30 minutes).
	@$(IN_VENV) python -m benchmarks.finetuning $(ARGS)

bench-training: install-dev ## Measure how fast a network learns.
	@$(IN_VENV) python -m benchmarks.training_speed $(ARGS)

bench-scoring: install-dev ## Measure how long a click takes while images are scored in the background (2 minutes).
	@$(IN_VENV) python -m benchmarks.scoring_load $(ARGS)

bench-clients: install-dev ## Measure 20 clients that click while another one propagates (6 minutes).
	@$(IN_VENV) python -m benchmarks.clients $(ARGS)

bench-memory: install-dev ## Measure a server's memory over 50 volumes and 5,000 clicks.
	@$(IN_VENV) python -m benchmarks.memory_growth $(ARGS)

bench-signals: install-dev ## Measure what each signal of uncertainty is worth, on real images.
	@$(IN_VENV) python -m benchmarks.signals $(ARGS)

bench-one-prompt: install-dev ## Measure segmentation without a prompt from 1 to 16 labelled images (about 20 minutes).
	@$(IN_VENV) python -m benchmarks.one_prompt $(ARGS)

bench-one-prompt-finetuned: install-dev ## Measure the same with weights that are fine-tuned on the labelled images (an hour).
	@$(IN_VENV) python -m benchmarks.one_prompt --fine-tune 3 $(ARGS)

bench-video: install-dev ## Measure J&F by interacted frames and memory policy, and frames per second (10 minutes).
	@$(IN_VENV) python -m benchmarks.video $(ARGS)

bench-propagation: install-dev ## Measure what comparing slices with the prompted ones gains in volumes (20 minutes).
	@$(IN_VENV) python -m benchmarks.propagation $(ARGS)

bench-auto-head: install-dev ## Measure trained classes against one prompt, and a KAN against linear layers (30 minutes).
	@$(IN_VENV) python -m benchmarks.auto_head $(ARGS)

bench-active-learning: install-dev ## Simulate annotation: the choice of the next image against chance (about half an hour).
	@$(IN_VENV) python -m benchmarks.active_learning $(ARGS)

KEYS ?= keys.txt
api-key: install ## Make an API key and print it once: make api-key NAME=anna ROLE=annotator [KEYS=keys.txt]
	@$(IN_VENV) python -m lib.server.api_keys "$(KEYS)" "$(NAME)" "$(ROLE)"

# In an environment of its own, so that it changes nothing of the server's.
.venv-audit/bin/pip-audit:
	@$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install -q pip-audit uv

# A clone of github.com/pypa/advisory-database, where PyPI's own database does not answer.
ADVISORIES ?=
# Strict: a package that the database was not asked about is a failure, too.
ifeq ($(ADVISORIES),)
audit: .venv-audit/bin/pip-audit ## List known vulnerabilities of the pinned packages (asks PyPI, or make audit ADVISORIES=clone).
	@found=$$(.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS) 2>&1); \
	status=$$?; echo "$$found"; \
	case "$$found" in *"could not be audited"*|*"onnection"*|*"imed out"*) echo "No audit was made: PyPI's" \
		"database of vulnerabilities does not answer here. Run make audit where pypi.org itself can be reached," \
		"or make audit ADVISORIES=<clone of github.com/pypa/advisory-database>.";; esac; exit $$status
else
audit: install-dev
	@$(IN_VENV) python -m docs.audit "$(ADVISORIES)" constraints.txt
endif

hashes: .venv-audit/bin/pip-audit ## Write requirements.lock: the pinned packages of the server with their hashes.
	@.venv-audit/bin/uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url -c constraints.txt requirements.txt -o requirements.lock

docs: install-dev ## Write the pages of docs/ that are generated.
	@$(IN_VENV) python -m docs.write_settings

clean: ## Remove the environment, the sample study with labels saved in it, outputs and caches.
	rm -rf $(VENV) studies/sample studies/sample_truth outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
