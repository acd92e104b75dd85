# What a developer types. `make` alone lists it.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

# The first Python 3.11 or 3.12 that can make virtual environments; or name one: make PYTHON=...
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	$$name -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' \
	2>/dev/null && echo $$name && break; done)

# Tests that need nothing but Python; each file in one process, so that it makes its models once.
# Files keep their order, in which those with slow tests come first (tests/conftest.py).
LOCAL := not spark and not browser and not milvus
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# What the tests have compiled is kept, whatever the environment says: each process compiles it else.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast coverage test-browser test-spark test-milvus check format docs docs-site constraints hashes clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv with the pinned packages and this project

$(READY): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the pinned packages into $(VENV) (a minute or two the first time)"
	@$(PIP) install --no-compile --constraint constraints.txt setuptools
	@$(PIP) install --no-compile --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # pip would take one processor
	@touch $@

$(BIN)/pip:
	@python="$(PYTHON)"; test -n "$$python" || { \
		echo "fm-recall needs Python 3.11 or 3.12 with its venv module, and found neither." >&2; \
		echo "On Debian: apt-get install python3.11 python3.11-venv" >&2; \
		echo "Elsewhere: make PYTHON=<path of a Python 3.11 or 3.12>" >&2; \
		exit 1; }; \
	echo "Making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

demo: $(READY) ## Train, publish and query a model on MovieLens 100k
	@$(BIN)/fm-recall demo

test: $(READY) ## Run all tests but those marked spark, browser or milvus, in two processes
	@$(BIN)/pytest --quiet $(PARALLEL) -m "$(LOCAL)" --durations=5 --durations-min=5

test-fast: $(READY) ## Run the tests of the inner loop, in two and a half minutes
	@$(BIN)/pytest --quiet $(PARALLEL) -m "$(LOCAL) and not slow"

coverage: $(READY) ## Say which lines the tests of the inner loop do not reach
	@$(BIN)/pytest --quiet $(PARALLEL) -m "$(LOCAL) and not slow" --cov

test-browser: $(READY) ## Run the tests of the explorer's page in a headless Chromium
	@command -v chromium >/dev/null || { \
		echo "The page is tested in Chromium, and there is no command chromium." >&2; \
		echo "On Debian: apt-get install chromium" >&2; \
		exit 1; }
	@$(PIP) install --constraint constraints.txt playwright
	@$(BIN)/pytest --quiet -m browser tests/browser

test-spark: $(READY) ## Run the tests on Spark, which needs Java 17
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[spark]'
	@$(BIN)/pytest --quiet -m spark tests/pipelines

test-milvus: $(READY) ## Run the tests of the index in a Milvus server, which they start
	@test -x build/milvus/bin/milvus-server || { \
		$(BIN)/python -m venv build/milvus && \
		build/milvus/bin/python -m pip install --quiet --quiet 'milvus==2.3.5'; }
	@$(BIN)/pytest --quiet -m milvus tests/serving

check: $(READY) ## Check format, lint, types and the import rule
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## Format, and mend what lint can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

docs: $(READY) ## Make the pages of docs/ that say what the code says
	@$(BIN)/python docs/generate.py

docs-site: $(READY) ## Build the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site: build/site/index.html"

constraints: $(BIN)/pip ## Pin the newest versions that pyproject.toml allows
	@rm -rf build/constraints
	@$(BIN)/python -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet --quiet --editable '.[dev,browser,spark,mlflow,tracing,wandb]'
	@{ echo "# Every package of the virtual environment. To renew: make constraints"; \
		build/constraints/bin/python -m pip list --format=freeze --exclude pip --exclude fm-recall; \
	} > build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/constraints

hashes: $(READY) ## Write which wheels the server's image takes, by constraints.txt
	@$(BIN)/python deploy/serve/pin_hashes.py

clean: ## Remove .venv and everything else that can be made again
	@rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
