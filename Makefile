# Each target does all of its set-up in .venv: made once, refreshed when the requirements change.

PYTHON ?= python3
STACK ?= onedl
WORKERS ?= 2

# Each stack has its packages and its venv: the two OpenMMLab lines install into the same import packages.
ifeq ($(filter onedl official oldest,$(STACK)),)
$(error STACK needs onedl, official or oldest, and is '$(STACK)')
endif
OF_STACK := $(if $(filter-out onedl,$(STACK)),-$(STACK))
VENV ?= .venv$(OF_STACK)
REQUIREMENTS ?= requirements$(OF_STACK).txt

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo demo-classification docs test lint again

help:
	@echo 'make demo          a student alone, with CKD and as is recommended, taught by a shipped teacher; table and picture'
	@echo 'make demo QUICK=1  the same on fewer scenes, two minutes after the set-up'
	@echo 'make demo FULL=1   the same with more scenes and steps, and a teacher that it trains'
	@echo "make demo SEEDS='0 1 2'"
	@echo '                   the same over these seeds; finished ones are kept'
	@echo 'make demo-classification'
	@echo '                   a teacher of handwritten digits, then students alone, with KD, CKD and PCKD; table and plots'
	@echo "make demo-classification SEEDS='0 1'"
	@echo '                   the same over these seeds; finished ones are kept'
	@echo 'make test          ruff, mypy and pytest'
	@echo 'make test ALL=1    the same, and every row of configs/README.md is trained for two steps'
	@echo 'make test FAST=1   ruff, mypy and the tests that need no detector, within a minute'
	@echo 'make test SHUFFLE=1'
	@echo '                   the same, files and tests in a random order; the number is its seed'
	@echo 'make test DATA=FOLDER'
	@echo '                   the same, and tests of real weights: FOLDER/weights/yolox_nano_coco_mmdet.pth, YOLOX-nano of COCO'
	@echo 'make test STACK=official'
	@echo '                   pytest beside the official mmengine, mmcv-lite, mmdet and mmpretrain; 6 GB in .venv-official'
	@echo 'make test STACK=oldest'
	@echo '                   pytest with torch 2.1 and the oldest of the other packages; 6 GB in .venv-oldest, with Python 3.10'
	@echo '                   or 3.11'
	@echo 'make lint          ruff and mypy'
	@echo 'make docs          the documentation as HTML, in docs/_build/html; a warning or a broken link is an error'
	@echo 'make install       the set-up alone, in $(VENV); the other targets do it themselves'
	@echo
	@echo 'PYTHON=python3.12 make ...   takes that interpreter (3.10 to 3.12)'

install: $(READY)
	@echo 'Ready: $(BIN)/python'

demo: $(READY)
	@$(BIN)/python tools/demo.py $(if $(filter-out 0,$(QUICK)),--quick) $(if $(filter-out 0,$(FULL)),--full) \
		$(if $(SEEDS),--seeds $(SEEDS))

demo-classification: $(READY)
	@$(BIN)/python tools/demo_classification.py $(if $(SEEDS),--seeds $(SEEDS))

# What the documentation alone needs stands in a file of its own: neither demo nor tests wait for it.
DOCS_READY := $(VENV)/.ready-docs
$(DOCS_READY): $(READY) requirements-docs.txt
	@echo 'set-up: the packages of requirements-docs.txt'
	@$(PIP) install --requirement requirements-docs.txt
	@touch $@

docs: $(DOCS_READY)
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	@$(BIN)/python docs/check_links.py docs/_build/html

lint: $(READY)
	@echo 'ruff' && $(BIN)/python -m ruff check --quiet .
	@echo 'mypy' && $(BIN)/python -m mypy

# What needs no detector: formulas, losses, and what chooses and counts rows.
FAST_TESTS := tests/functional tests/losses tests/test_balance.py tests/test_classes.py tests/test_judgement.py \
	tests/test_kills.py tests/test_layers.py tests/test_options.py tests/test_rows.py tests/test_samples.py \
	tests/test_saving.py tests/test_selectors.py tests/test_text.py

# One thread a worker: two processes on one core each are faster than one process on two.
# Lint and types are of the code: what they say does not depend on the stack, and only the default one has the two.
test: $(if $(OF_STACK),$(READY),lint)
	@echo 'pytest, $(WORKERS) workers' && \
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ALL='$(ALL)' SHUFFLE='$(SHUFFLE)' DATA='$(DATA)' $(BIN)/python -m pytest -n $(WORKERS) \
	$(if $(filter-out 0,$(FAST)),$(FAST_TESTS)) $(PYTEST)

# $(READY) is written last and taken away first: without it, a set-up was cut off, and starts from an empty folder.
# It holds the folder that it was made in: the package of a copied or moved folder would still be the old one's.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell cat '$(READY)'),$(CURDIR))
REDO := again
endif
endif

# An interpreter asked for by name is taken, whatever the folder had before.
version = $(shell '$(1)' -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)
ifneq ($(origin PYTHON),file)
ifneq ($(call version,$(PYTHON)),$(call version,$(BIN)/python))
OTHER := yes
REDO := again
endif
endif

define CHECK_PYTHON
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit("ckd_mmdet needs Python 3.10, 3.11 or 3.12, and $(PYTHON) is Python %d.%d.%d.\nName another, for example:  PYTHON=python3.12 make $(MAKECMDGOALS)" % sys.version_info[:3])
endef
export CHECK_PYTHON

$(READY): $(REQUIREMENTS) requirements.txt pyproject.toml $(REDO)
	@set -e; \
	if [ -e $(READY) ] && [ -z '$(OTHER)' ]; then \
		echo 'set-up 1 of 3: refreshing $(VENV)'; \
		mv $(READY) $(READY).old; \
	else \
		command -v '$(PYTHON)' >/dev/null || { echo 'PYTHON needs a Python interpreter, $(PYTHON) is not found.' >&2; exit 1; }; \
		'$(PYTHON)' -c "$$CHECK_PYTHON"; \
		echo "set-up 1 of 3: a new $(VENV) with $$('$(PYTHON)' -V)"; \
		'$(PYTHON)' -m venv --clear $(VENV); \
	fi; \
	failed() { if [ -e $(READY).old ]; then mv $(READY).old $(READY); touch -t 200001010000 $(READY); fi; exit 1; }; \
	echo 'set-up 2 of 3: the packages of $(REQUIREMENTS) (the first time some minutes)'; \
	$(PIP) install --requirement $(REQUIREMENTS) || failed; \
	echo 'set-up 3 of 3: ckd_mmdet'; \
	$(PIP) install --no-deps --editable . || failed; \
	rm -f $(READY).old; \
	echo '$(CURDIR)' > $(READY)

again:
