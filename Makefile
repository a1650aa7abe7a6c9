# Everything starts here. Needed: Python 3.11 or newer; the rest is fetched into .venv by itself, once.
#
#   make demo               the FastAPI example with local providers; APP=flask or spa, PORT=8080
#   make test               the tests; ARGS="-k pkce -x" goes to pytest
#   make check              format, lint and types, changing nothing
#   make format             put the format right
#   make bench              side by side with other packages; PARTS="request call" only those
#   make clean              remove whatever the above made

APP ?= fastapi
PORT ?=
ARGS ?=
PARTS ?=
VENV ?= .venv
BENCH ?= .venv-bench
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Paths are relative and quoted: the checkout may stand in a folder with spaces.
RUN := "$(VENV)/bin/python"
PIP := $(RUN) -m pip install -qq --disable-pip-version-check --no-input

.PHONY: demo test check format bench bench-here clean

demo: $(VENV)/.group-demo
	@$(RUN) examples/demo.py --app "$(APP)" $(if $(PORT),--port "$(PORT)")

# The node servers of the tests are optional: without npm the tests that want them say so and skip.
test: $(VENV)/.group-test
	@if command -v npm >/dev/null; then $(RUN) -m tests.servers || test -z "$$OAUTHGATE_TEST_ALL"; fi
	@$(RUN) -m pytest $(ARGS)

check: $(VENV)/.group-check
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

format: $(VENV)/.group-check
	@$(RUN) -m ruff check --fix-only .
	@$(RUN) -m ruff format .

# The peers have an environment of their own, so that no test ever leans on one of them.
bench:
	@$(MAKE) --no-print-directory VENV="$(BENCH)" bench-here
bench-here: $(VENV)/.group-bench
	@$(RUN) -m bench $(PARTS)

clean:
	@rm -rf .venv .venv-bench .demo dist build tests/servers/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A dependency group of pyproject.toml is installed when its stamp is missing or older than that file.
$(VENV)/.group-%: pyproject.toml | $(VENV)/.made
	@echo "Installing what \`make $*\` needs (once, about half a minute)"
	@$(PIP) --editable ".[testing]" --group "$*"
	@touch "$@"

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found: install one, or give PYTHON=" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv "$(VENV)"
	@$(PIP) --upgrade "pip>=25.1" # the first that knows dependency groups
	@touch "$@"

# Stamps are kept although make sees them as steps on the way.
.SECONDARY:
