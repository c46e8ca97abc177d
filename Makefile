# Every target makes its own environment once (VENV, default .venv) and needs nothing beforehand but Python >= 3.11 with pip.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: study test test-all bench bench-kernels bench-gram bench-rivals bench-spectrum bench-edge bench-diagnosis results breadth battery certificates docs lint clean help

help:
	@echo "make study      drive three networks to zero loss on real digits, and explain why it worked"
	@echo "make test       the test suite (minutes);  make test-all  with the slow tests"
	@echo "make results    write docs/results again from the default study"
	@echo "make breadth    docs/results/breadth.md: every architecture, data set, label and optimiser (under an hour; needs CIFAR-10)"
	@echo "make bench-kernels  docs/results/kernels.md: limit kernels beside matrix products and neural-tangents (ten minutes)"
	@echo "make bench-gram     docs/results/gram.md: finite Grams beside torch.func, neural-tangents and nngeometry (a quarter of an hour)"
	@echo "make bench-rivals   docs/results/rivals.md: what other tools answer on planted faults (minutes)"
	@echo "make bench-spectrum, bench-edge, bench-diagnosis  smallest eigenvalues; predicted against measured edges; planted faults"
	@echo "make lint       ruff, types, layers;       make bench     timings as ratios;   make docs  the manual"

$(VENV)/.base: pyproject.toml constraints.txt
	@echo "installing zeroloss into $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "installing the test tools into $(VENV) (once)"
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@$(PIP) -e '.[docs]'
	@touch $@

study: $(VENV)/.base
	$(BIN)/zeroloss study

# two workers with a thread each: more threads than cores would only wait for one another
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.dev
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(VENV)/.dev
	$(BIN)/python -m bench

bench-kernels: $(VENV)/.dev
	$(BIN)/python -m bench.kernels

bench-spectrum: $(VENV)/.dev
	$(BIN)/python -m bench.spectrum

bench-edge: $(VENV)/.dev
	$(BIN)/python -m bench.edge

bench-diagnosis: $(VENV)/.dev
	$(BIN)/python -m bench.diagnosis

bench-gram: $(VENV)/.dev
	$(BIN)/python -m bench.gram

bench-rivals: $(VENV)/.dev
	$(BIN)/python -m bench.rivals

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

results: $(VENV)/.dev
	$(BIN)/python -m bench.results

breadth: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.breadth

certificates: $(VENV)/.dev
	$(BIN)/python -m bench.certificates

battery: $(VENV)/.dev
	$(BIN)/python -m bench.battery

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site
