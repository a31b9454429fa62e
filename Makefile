# make demo   set up what is missing, then generate "a red duck" through headless Blender into out/demo/
# make test   set up what is missing, then lint, type check and every test that needs no GPU and no window
# make help   the rest

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint lint-rules lint-format lint-types format test-unit test-bpy test-bpy-all test-blender extension repository offline docs clean dev bpy

# The first Python that is new enough; wheels/environments.py picks per environment.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
environments = "$(or $(PYTHON),$(error Python 3.11 or newer was not found on PATH. Install python3.11 and its \
	venv package))" wheels/environments.py
venv = .venv/bin/python

DEMO_PROMPT ?= a red duck
DEMO_PRESET ?= standard
DEMO_OUT ?= out/demo

help:
	@echo "make demo          generate \"$(DEMO_PROMPT)\" through headless Blender into $(DEMO_OUT)/ (sets up what it needs)"
	@echo "make test          linter, types and every test that needs no GPU and no window (sets up what it needs)"
	@echo "make setup         the backend's environment (.venv) and the developer's tools, and headless Blender (.venv-bpy)"
	@echo "make lint          ruff and pyright"
	@echo "make format        ruff's formatter, in place"
	@echo "make test-bpy-all  the tests inside Blender under 4.2, 4.5 and 5.0"
	@echo "make test-blender  the tests in a real Blender, that of PATH, or BLENDER and BLENDER_WINDOW, the commands that start it"
	@echo "make repository    the zip, and dist/repository/ to be put on any web server as an extension repository"
	@echo "make extension     build and validate the extension's zip in dist/"
	@echo "make offline       the full zip with PyTorch for the processor, for PLATFORMS (default: $(PLATFORMS)), in dist/"
	@echo "make docs          write the generated pages under docs/ anew"
	@echo "make clean         remove environments, builds and results"

setup:
	@$(environments) make backend dev bpy

demo:
	@mkdir -p "$(DEMO_OUT)"
	@$(environments) run scripts/generate.py -- --prompt "$(DEMO_PROMPT)" --preset "$(DEMO_PRESET)" --seed 0 \
	    --out "$(DEMO_OUT)" --blend "$(DEMO_OUT)/$(lastword $(DEMO_PROMPT)).blend"
	@echo; echo "Made in $(DEMO_OUT)/:"; ls -sh1 "$(DEMO_OUT)"

# Everything runs even when something before it failed; the exit code tells.
test: setup
	@$(MAKE) --no-print-directory --keep-going lint test-unit test-bpy

lint: lint-rules lint-format lint-types

lint-rules: dev
	$(venv) -m ruff check --no-cache --output-format concise .

lint-format: dev
	$(venv) -m ruff format --no-cache --check --output-format concise .

lint-types: dev
	$(venv) -m pyright

format: dev
	$(venv) -m ruff check --no-cache --fix .
	$(venv) -m ruff format --no-cache .

test-unit: dev
	$(venv) -m pytest tests/unit

test-bpy: dev bpy
	DREAMLATHE_PYTHON="$(CURDIR)/$(venv)" .venv-bpy/bin/python -m pytest tests/bpy

test-bpy-all: dev bpy
	@$(environments) make bpy-4.2 bpy-5.0
	@for folder in .venv-bpy-4.2 .venv-bpy .venv-bpy-5.0; do \
	    DREAMLATHE_PYTHON="$(CURDIR)/$(venv)" $$folder/bin/python -m pytest tests/bpy || failed=1; \
	done; test -z "$$failed"

test-blender: dev bpy
	DREAMLATHE_PYTHON="$(CURDIR)/$(venv)" .venv-bpy/bin/python -m pytest tests/blender

extension: bpy
	@.venv-bpy/bin/python wheels/build_extension.py

repository: bpy
	@.venv-bpy/bin/python wheels/build_extension.py --repository dist/repository

PLATFORMS ?= linux-x64
offline: bpy
	@.venv-bpy/bin/python wheels/build_extension.py --offline $(PLATFORMS)

docs: dev
	@$(venv) docs/settings_page.py

dev:
	@$(environments) make dev

bpy:
	@$(environments) make bpy

clean:
	rm -rf .venv .venv-bpy .venv-bpy-4.2 .venv-bpy-5.0 out dist .pytest_cache .ruff_cache .hypothesis
