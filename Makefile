# make install   the environment in .venv (DETECTRON2=<pip requirement or path> for another Detectron2)
#                CONSTRAINTS=<file>: the versions to take
# make demo      shows what the shipped detectors find, fine-tunes both on generated faces and shows
#                what they find (5 minutes on two cores; BUDGET=long: trains small networks from random
#                weights, 18 minutes; BUDGET=smoke: a minute; DETECTORS=df2s2: DF2S2 alone)
# make test      the test suite;  make test-long: the README's long commands too
#                LIMIT=avx2: as on a processor that has no more; tools/qa/limit_processor.c names
#                the limits and what they need
# make coverage  the suite with the lines that it does not reach (processes it starts included)
# make docs     the documentation as a site, in output/site; a broken link is an error
# make lint      ruff, isort, black, mypy on the public API, and which package may import which
#                (pyproject.toml)
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DETECTRON2 ?=
BUDGET ?= full
DETECTORS ?= df2s2 lffd
LIMIT ?=
BIN = $(VENV)/bin
STAMP = $(VENV)/.face-d2-installed
DOCS_STAMP = $(VENV)/.face-d2-docs-installed
LIMITER = $(VENV)/limit_processor.so
PACKAGES = $(VENV)/limited
LIMITED = $(if $(LIMIT),LIMIT_PROCESSOR=$(LIMIT) LD_PRELOAD=$(abspath $(LIMITER)) LIMITED_PACKAGES=$(abspath $(PACKAGES)))
SOURCES = df2s2_d2 lffd_d2 face_d2 configs datasets examples tools tests benchmarks setup.py

.PHONY: install demo test test-long coverage docs lint format clean

install: $(STAMP)

# Made anew when what is to be installed changed, or another Detectron2 is asked for.
$(STAMP): setup.py $(CONSTRAINTS) tools/install.sh $(if $(DETECTRON2),FORCE)
	PYTHON="$(PYTHON)" VENV="$(VENV)" CONSTRAINTS="$(CONSTRAINTS)" DETECTRON2="$(DETECTRON2)" \
		sh tools/install.sh
	@touch $@

FORCE:

demo: $(STAMP)
	$(BIN)/python tools/demo.py --budget $(BUDGET) --detectors $(DETECTORS)

test: $(STAMP) $(if $(LIMIT),$(LIMITER) $(PACKAGES))
	$(LIMITED) $(BIN)/python -m pytest -m "not long"

test-long: $(STAMP) $(if $(LIMIT),$(LIMITER) $(PACKAGES))
	$(LIMITED) $(BIN)/python -m pytest

$(LIMITER): tools/qa/limit_processor.c $(STAMP)
	$(CC) -O2 -shared -fPIC -o $@ $< -ldl

$(PACKAGES): tools/qa/limit_packages.py $(STAMP)
	$(BIN)/python $< $@
	@touch $@

coverage: $(STAMP)
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -m "not long"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under 95

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "output/site/index.html"

$(DOCS_STAMP): setup.py $(CONSTRAINTS) $(STAMP)
	$(BIN)/python -m pip --disable-pip-version-check install -q -c $(CONSTRAINTS) \
		--no-build-isolation -e '.[docs]'
	@touch $@

lint: $(STAMP)
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m isort --check-only --quiet $(SOURCES)
	$(BIN)/python -m black --check --quiet $(SOURCES)
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/python -m ruff check --fix $(SOURCES)
	$(BIN)/python -m isort $(SOURCES)
	$(BIN)/python -m black $(SOURCES)

clean:
	rm -rf $(VENV) build dist *.egg-info
