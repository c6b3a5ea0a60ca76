# Two commands are enough: `make book` and `make test`. `make help` lists the others.
PYTHON ?= python3
PROFILE ?= standard
CHAPTER ?=
NAMES ?=
ARGS ?=
BIN := .venv/bin
export PYTHONHASHSEED := 0

.DEFAULT_GOAL := help
.PHONY: help setup book test faults nbval site run publish check train networks references data lint format lab bench lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv with the pinned dependencies

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A virtual environment that an interruption left without pip is made anew.
.venv/.installed: pyproject.toml requirements.txt constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) --require-hashes --no-deps --requirement requirements.txt
	$(PIP) --constraint constraints.txt torch torchvision
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

book: setup ## execute every chapter at quick and render the book to _build/html/index.html
	$(BIN)/python -m robustutils build

test faults nbval: export OMP_NUM_THREADS = 1
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
NBVAL = --nbval-lax --nbval-cell-timeout=600 -p no:cacheprovider chapters/*.ipynb

test: setup ## all tests on up to four cores, and every chapter re-executed at quick against its stored outputs
	$(PYTEST) --no-loadscope-reorder $(NBVAL) tests

faults: setup ## kills, damaged files, hostile data and parameters by the hundred; KILLS=60 for more kills
	$(PYTEST) tests/faults/fault_*.py

nbval: setup ## only the chapters: re-execute at quick and compare the checked cells
	$(PYTEST) $(NBVAL)

site: setup ## render the published edition
	$(BIN)/python -m robustutils site

run: setup ## execute one chapter: make run CHAPTER=name PROFILE=standard ARGS="-p seed 3"
	@test -n "$(CHAPTER)" || { echo "error: name a chapter, CHAPTER=..."; exit 2; }
	$(BIN)/python -m robustutils run $(CHAPTER) --profile $(PROFILE) $(ARGS)

publish: setup ## execute one chapter and make it the published edition
	@test -n "$(CHAPTER)" || { echo "error: name a chapter, CHAPTER=..."; exit 2; }
	$(BIN)/python -m robustutils publish $(CHAPTER) --profile $(PROFILE) $(ARGS)

check: setup ## do today's code and the published outcomes agree? make check CHAPTER=name; without one, all
	$(BIN)/python -m robustutils check $(CHAPTER)

train: setup ## train networks in the background, resumably: make train NAMES="madry_mnist eat_d"
	@test -n "$(NAMES)" || { echo "error: name networks, NAMES=..."; exit 2; }
	$(BIN)/python -m robustutils train $(NAMES)

networks: setup ## the published networks, with accuracy, radius and minutes of training
	$(BIN)/python -m robustutils networks

references: setup ## renew the paired notebooks and the outputs that nbval compares
	$(BIN)/python -m robustutils references

data: setup ## download the public data sets, with checksums
	$(BIN)/python -m robustutils data $(ARGS)

lint: setup ## ruff, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests

format: setup ## bring the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: setup ## JupyterLab with the project's kernel
	$(BIN)/jupyter lab chapters

bench: setup ## attack speed against foolbox, torchattacks, ART and adv-lib
	$(PIP) --no-deps --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/attack_speed.py $(ARGS)

lock: ## renew requirements.txt from pyproject.toml, with hashes of all but the builds of PyTorch; needs uv
	uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate --no-header --all-extras \
	  --group build --constraint constraints.txt pyproject.toml \
	  | awk '/^[^ ]/ { kept = !/^(torch|torchvision|triton|nvidia|cuda)[-=]/ } kept' > requirements.txt

clean: ## remove everything that can be made again
	rm -rf _build .venv
