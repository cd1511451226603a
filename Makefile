# Everything runs in a virtual environment of its own: all that is needed beforehand is Python 3.11 or newer and a pip
# that reaches its registry. PYTHON=python3.12 chooses an interpreter, VENV=folder another place for the environment,
# ARGS="..." is passed on to the program that a target runs.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTHON ?=
ARGS ?=
WORKERS ?= 3
QUICK ?=
PEERS ?=
WORKLOADS ?=

.PHONY: help demo test lint lint-rules lint-format lint-types lint-arrows bench scale guard docs chaos changelog requirements clean
.NOTPARALLEL:

help:
	@echo "make demo          watch a hub and two nodes compute Pi and lose a node (under a minute on two idle cores)"
	@echo "make test          run all tests, in 3 processes     WORKERS=2, or some in one: ARGS=\"-k name -m 'not slow'\""
	@echo "make lint          check style, types and the arrows between folders"
	@echo "make bench         measure, side by side with peers  QUICK=1 for two minutes, PEERS=\"dask ray\" for some"
	@echo "make scale         measure cost, restart and submissions against size, and draw them into docs/ (under 8 minutes)"
	@echo "make guard         check the few speeds that must not get far worse (under 40 s)"
	@echo "make chaos         kill and cut a real grid at random     SECONDS=600 SEED=1"
	@echo "make docs          build the documentation into site/"
	@echo "make requirements  pin the newest versions of everything in requirements/"
	@echo "make clean         remove what was built; the environment $(VENV) stays"

demo: $(VENV)/.installed
	@$(BIN)/fallow demo $(ARGS)

# More processes than two cores: tests wait for others more than they compute. They start some hundreds: compiled files are kept.
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(or $(ARGS),--numprocesses $(WORKERS) --dist worksteal --durations 10)

lint: lint-rules lint-format lint-types lint-arrows

lint-rules: $(VENV)/.installed-dev
	$(BIN)/ruff check .

lint-format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

lint-types: $(VENV)/.installed-dev
	$(BIN)/mypy

lint-arrows: $(VENV)/.installed-dev
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py $(if $(QUICK),--scale quick) $(if $(PEERS),--peers $(PEERS)) \
		$(if $(WORKLOADS),--workloads $(WORKLOADS)) $(ARGS)

scale: $(VENV)/.installed-dev
	rm -f docs/scale.json
	$(BIN)/python benchmarks/load/scale.py cost restart submissions --seconds 10 --json docs/scale.json $(ARGS)
	$(BIN)/python benchmarks/load/scale_plot.py

guard: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/guard.py $(ARGS)

chaos: $(VENV)/.installed-dev
	$(BIN)/python tests/faults/chaos/chaos.py --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

changelog: $(VENV)/.installed-dev
	$(BIN)/towncrier build $(ARGS)

# --universal pins for every Python from 3.11 on; index hosts stay out, so that any mirror will do.
UV_COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --upgrade --custom-compile-command "make requirements"
requirements: $(VENV)/.installed-dev
	$(BIN)/$(UV_COMPILE) --extra hub --group build --output-file requirements/run.txt
	$(BIN)/$(UV_COMPILE) --extra hub --extra postgres --group build --group dev --constraint requirements/run.txt \
		--output-file requirements/dev.txt

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find src tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------------------------------

$(VENV)/pyvenv.cfg:
	@found=; for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "Fallow needs Python 3.11 or newer, and none was found on the PATH." >&2; exit 1; fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found can't make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi; \
	echo "making the virtual environment $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV) || { rm -f $@; exit 1; }

$(VENV)/.installed: requirements/run.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing Fallow and what it needs into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing Fallow and the developers' tools into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.installed $@
