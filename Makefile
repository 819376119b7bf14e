# Two commands do everything:  make demo   and   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEXT ?= Hello. I am speaking words that I have never said before, and my lips follow them.
VIDEO ?=
SPEECH ?=
IMAGE ?=
OUT ?= out
# Address of an index of CPU-only PyTorch wheels, for machines whose index only has the CUDA build.
TORCH_INDEX ?=
export TEXT VIDEO SPEECH IMAGE OUT BIN

.PHONY: demo test lint clean install
install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --index-url $(TORCH_INDEX) torch==2.13.0)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	@sh scripts/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf out build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find serve_app deployments kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +
