# make demo   installs, then trains and evaluates a tiny OVeNet on the built-in toy streets
# make test   installs, then runs the tests
# make lint   checks style and types
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test slow-test lint clean

demo: $(VENV)/installed
	$(RUN) main.py --config=configs/demo.py

test: $(VENV)/tests-installed
	$(RUN) -m pytest -m "not slow" $(PYTEST_OPTIONS)

slow-test: $(VENV)/tests-installed
	$(RUN) -m pytest -m slow

lint: $(VENV)/tests-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/installed: requirements.txt requirements-tensorboard.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r requirements.txt -r requirements-tensorboard.txt
	touch $@

$(VENV)/tests-installed: $(VENV)/installed requirements-test.txt
	$(VENV)/bin/pip install -q -r requirements-test.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
