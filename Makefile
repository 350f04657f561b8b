# make demo | test | lint | format | venv | clean.  PYTHON: the interpreter (3.11 or newer); VENV: where to install.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
space := $(subst ,, )
STAMP := $(subst $(space),\ ,$(VENV))/.installed

.PHONY: demo test lint format venv clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	"$(BIN)/terrain3d" demo --out demo_out

test: $(STAMP)
	"$(BIN)/python" -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy

format: $(STAMP)
	"$(BIN)/python" -m ruff check --fix .
	"$(BIN)/python" -m ruff format .

venv: $(STAMP)

# Installed anew only when the requirements change; the source itself is used in place.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "terrain3d needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch "$(VENV)/.installed"

clean:
	rm -rf "$(VENV)" demo_out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find terrain3d tests -name __pycache__ -type d -prune -exec rm -rf {} +
