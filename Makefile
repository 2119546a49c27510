# `make demo` and `make test` are all that needs typing; each prepares .venv by itself.

PYTHON ?= python3
# everything that a test can use
EXTRAS ?= cython r octave numba expr plot arviz mpi
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/pxtools-is-set-up
# all tests: two halves beside each other (tests/conftest.py says which)
IN_HALVES := --numprocesses 2
KERNELS := $(wildcard pxtools/kernels/*.pyx pxtools/kernels/*.pxd)

.PHONY: help setup demo test check check-format check-lint check-types check-contracts fix docs bench rivals kalman-rivals kernels clean

help:
	@echo "make demo     sample three Gaussians in a real kernel on local engines; see build/demo/"
	@echo "make test     every test          (one file: make test ARGS=tests/test_errors.py)"
	@echo "make check    format, lint, types, import contracts        (make fix repairs the first two)"
	@echo "make docs     the documentation site, build/docs/index.html; a warning is an error"
	@echo "make bench    every benchmark     (one: make bench ARGS=benchmarks/NAME.py)"
	@echo "make rivals   emcee, zeus, PyMC, nutpie for benchmarks/samplers.py, in build/rivals"
	@echo "make kalman-rivals   filterpy, pykalman, statsmodels, dynamax for benchmarks/kalman.py, in build/kalman-rivals"
	@echo "make kernels  compile the kernels and show what the compiler says"
	@echo "make clean    remove what was built, .venv too"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py Makefile tools/setup_env.py $(KERNELS)
	@$(PYTHON) tools/setup_env.py $(VENV) $(EXTRAS)
	@touch $@

demo: $(STAMP)
	@$(PY) -m pxtools demo --out build/demo

test: $(STAMP)
	@$(PY) -m pytest $(or $(ARGS),$(IN_HALVES))

check: check-format check-lint check-types check-contracts

check-format: $(STAMP)
	@$(VENV)/bin/ruff format --check --output-format concise .

check-lint: $(STAMP)
	@$(VENV)/bin/ruff check --output-format concise .

check-types: $(STAMP)
	@$(VENV)/bin/mypy

check-contracts: $(STAMP)
	@$(VENV)/bin/lint-imports

fix: $(STAMP)
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

.PHONY: docs
docs: $(STAMP)
	@$(PY) -m sphinx -q -W --keep-going -j auto -c docs -d build/doctrees . build/docs
	@echo "docs: build/docs/index.html"

bench: $(STAMP)
	@set -e; for script in $(or $(ARGS),$(sort $(wildcard benchmarks/*.py))); do \
		echo "== $$script"; $(PY) $$script; done

rivals: $(STAMP)
	UV_PROJECT_ENVIRONMENT=build/rivals UV_PYTHON_DOWNLOADS=never uv sync --python $(PYTHON) --no-default-groups \
		--group rivals --extra numba

kalman-rivals: $(STAMP)
	UV_PROJECT_ENVIRONMENT=build/kalman-rivals UV_PYTHON_DOWNLOADS=never uv sync --python $(PYTHON) --no-default-groups \
		--group kalman-rivals --extra expr

kernels: $(STAMP)
	$(PY) setup.py build_ext --inplace --force
	@$(PY) tools/compiled_kernels.py pxtools/kernels

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f pxtools/kernels/*.so pxtools/kernels/*.c
	find pxtools tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
