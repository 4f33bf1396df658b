# make demo   installs, then trains and evaluates a tiny OVeNet on the built-in toy streets
# make test   installs, then runs the tests; what they compiled is kept in ~/.cache/ovenet_jax/tests-xla
# make browser-test   the pages of reports in Debian's chromium
# make gpu-program GPU_PROGRAM="--config=..."   what a GPU would do in a training step, without a GPU
# make gpu-program-test   whether that is as it is meant to be
# make lint   checks style and types
# make docs   the pages of docs/ as a site, build/site
# make slow-test   the tests that take minutes each
# make clean   removes all environments, those of .ci/run too, and what tools left
PYTHON ?= python3
VENV ?= .venv
# One more than two cores: tests wait for disks, and for processes that they start.
WORKERS ?= 3
RUN := $(VENV)/bin/python

# Where a GPU is only described JAX's plugin is enough, without CUDA's libraries. What XLA makes of a step differs from
# release to release.
GPU_PYTHON ?= python3.12
GPU_VENV ?= .venv-gpu-program
DOCS_VENV ?= .venv-docs
GPU_JAX := 0.11.2

.PHONY: help demo test browser-test slow-test gpu-program gpu-program-test lint docs clean

demo: $(VENV)/installed
	$(RUN) main.py --config=configs/demo.py

help:
	@sed -n 's/^# make/make/p' Makefile

test: $(VENV)/tests-installed
	$(RUN) -m pytest -m "not slow and not browser" -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		$(PYTEST_OPTIONS)

browser-test: $(VENV)/browser-installed
	$(RUN) -m pytest -m browser $(PYTEST_OPTIONS)

slow-test: $(VENV)/tests-installed
	$(RUN) -m pytest -m slow

gpu-program: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m benchmarks.gpu_program $(GPU_PROGRAM)

gpu-program-test: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m pytest -m gpu_program tests/test_gpu_program.py

lint: $(VENV)/tests-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(DOCS_VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

$(VENV)/installed: requirements.txt requirements-tensorboard.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r requirements.txt -r requirements-tensorboard.txt
	touch $@

$(VENV)/tests-installed: $(VENV)/installed requirements-test.txt
	$(VENV)/bin/pip install -q -r requirements-test.txt
	touch $@

$(VENV)/browser-installed: $(VENV)/tests-installed requirements-browser.txt
	$(VENV)/bin/pip install -q -r requirements-browser.txt
	touch $@

$(GPU_VENV)/installed: requirements.txt
	$(GPU_PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/pip install -q -r requirements.txt pytest jax==$(GPU_JAX) jaxlib==$(GPU_JAX)
	$(GPU_VENV)/bin/pip install -q --no-deps jax-cuda13-plugin==$(GPU_JAX) jax-cuda13-pjrt==$(GPU_JAX)
	touch $@

$(DOCS_VENV)/installed: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install -q -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) $(GPU_VENV) $(DOCS_VENV) .venv-* .cache build .mypy_cache .pytest_cache .ruff_cache
