# Set-up and everyday commands. Needs Python 3.11, 3.12 or 3.13 and make, nothing else; `make help` lists them.
#
# .venv holds exactly what requirements.lock names, by hash, and this folder as an editable install. It is built again when
# the lock changes, when an install was interrupted, and when .venv was copied here from elsewhere; otherwise nothing runs.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGES := $(VENV)/packages.stamp
PROJECT := $(VENV)/project.stamp

# Content of the stamp and version of the Python in .venv, and what they should be.
INSTALLED := $(shell $(BIN)/python -c "import platform; print(open('$(PACKAGES)').read(), platform.python_version())" 2>/dev/null)
EXPECTED := in $(CURDIR) with Python
ifneq ($(PYTHON),)
EXPECTED := $(EXPECTED) $(shell $(PYTHON) -c "import platform; print(platform.python_version())" 2>/dev/null)
endif

USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs clean

help:
	@echo "make demo     fit the published runs, train a small sweep on this machine, fit it and write the report"
	@echo "make test     linters, type checker and tests; ARGS='-k config' selects tests, ARGS='-m long' and '-m slow' run the rest"
	@echo "make lint     ruff and mypy"
	@echo "make format   format the code with ruff"
	@echo "make docs     build the documentation in site/; open site/index.html ($(BIN)/mkdocs serve has the search, too)"
	@echo "make setup    only the virtual environment $(VENV); the commands above set it up if it is missing"
	@echo "make clean    remove $(VENV) and caches; runs/ and reports/ stay"
	@echo "With another Python: make setup PYTHON=/path/to/python3.12"

setup: $(PROJECT)
	@echo "$(VENV) is ready: make demo shows what lmscale does, source $(BIN)/activate puts it on your PATH"

demo: $(PROJECT)
	@$(BIN)/lmscale demo $(ARGS)

test: lint
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(PROJECT)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(PROJECT)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(PROJECT)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find lmscale sweeps experiments analysis tests -name __pycache__ -prune -exec rm -rf {} +

ifeq ($(findstring $(EXPECTED),$(INSTALLED)),)
.PHONY: $(PACKAGES)
endif

$(PACKAGES): requirements.lock
	@rm -f $@; python=; \
	for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
		if $$candidate -c "$(USABLE)" 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "$(if $(PYTHON),$(PYTHON) is not,nothing on PATH is) a working Python 3.11, 3.12 or 3.13 with its venv module:" \
			"install one (Debian: apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV)
	@echo "installing what $< pins: $$(grep -E '^[a-z0-9-]+==' $< | grep -vE "== '(win32|emscripten)'" | cut -d= -f1 | sort -u | grep -c .) packages, 1.2 GB unpacked"
	@{ $(PIP) install --no-compile --progress-bar off --require-hashes -r $< \
		&& printf 'in %s with Python' '$(CURDIR)' > $@; } | \
	{ n=0; while read -r line; do case $$line in \
		Collecting*|Processing*) n=$$((n + 1)); if [ $$((n % 20)) -eq 0 ]; then echo "  $$n fetched"; fi;; \
		"Installing collected"*) echo "  $$n fetched, unpacking";; \
	esac; done; }
	@test -s $@ || { echo "the packages could not be installed (the reason is above); fix it and run make again" >&2; exit 1; }

$(PROJECT): $(PACKAGES) pyproject.toml
	@$(PIP) install -q --no-index --no-deps --no-build-isolation -e .
	@touch $@
