# make demo   installs, then trains and evaluates a tiny OVeNet on the built-in toy streets
# make test   installs, then runs the tests; what they compiled is kept in ~/.cache/ovenet_jax/tests-xla
# make browser-test   the pages of reports in Debian's chromium
# make lint   checks style and types
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
RUN := $(VENV)/bin/python

.PHONY: demo test browser-test slow-test lint clean

demo: $(VENV)/installed
	$(RUN) main.py --config=configs/demo.py

test: $(VENV)/tests-installed
	$(RUN) -m pytest -m "not slow and not browser" -n $(WORKERS) --dist loadfile $(PYTEST_OPTIONS)

browser-test: $(VENV)/browser-installed
	$(RUN) -m pytest -m browser $(PYTEST_OPTIONS)

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

$(VENV)/browser-installed: $(VENV)/tests-installed requirements-browser.txt
	$(VENV)/bin/pip install -q -r requirements-browser.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
