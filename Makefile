# make install   the environment in .venv (DETECTRON2=<pip requirement or path> for another Detectron2)
#                CONSTRAINTS=<file>: the versions to take
# make demo      trains both detectors on generated faces and shows what they find (BUDGET=smoke: a
#                minute; DETECTORS=df2s2 trains DF2S2 alone)
# make test      the test suite;  make test-long: the README's long commands too
# make coverage  the suite with the lines that it does not reach (processes it starts included)
# make lint      ruff, isort, black, and which package may import which (pyproject.toml)
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DETECTRON2 ?=
BUDGET ?= full
DETECTORS ?= df2s2 lffd
BIN = $(VENV)/bin
STAMP = $(VENV)/.face-d2-installed
SOURCES = df2s2_d2 lffd_d2 face_d2 configs datasets examples tools tests benchmarks setup.py

.PHONY: install demo test test-long coverage lint format clean

install: $(STAMP)

# Made anew when what is to be installed changed, or another Detectron2 is asked for.
$(STAMP): setup.py $(CONSTRAINTS) tools/install.sh $(if $(DETECTRON2),FORCE)
	PYTHON="$(PYTHON)" VENV="$(VENV)" CONSTRAINTS="$(CONSTRAINTS)" DETECTRON2="$(DETECTRON2)" \
		sh tools/install.sh
	@touch $@

FORCE:

demo: $(STAMP)
	$(BIN)/python tools/demo.py --budget $(BUDGET) --detectors $(DETECTORS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not long"

test-long: $(STAMP)
	$(BIN)/python -m pytest

coverage: $(STAMP)
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -m "not long"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under 95

lint: $(STAMP)
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m isort --check-only --quiet $(SOURCES)
	$(BIN)/python -m black --check --quiet $(SOURCES)
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/python -m ruff check --fix $(SOURCES)
	$(BIN)/python -m isort $(SOURCES)
	$(BIN)/python -m black $(SOURCES)

clean:
	rm -rf $(VENV) build dist *.egg-info
