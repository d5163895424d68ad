# make demo    installs, finds people in photographs, trains a small network on drawn crowds
# make test    installs, runs the checks and every test
#
# make build      installs into .venv and compiles what has changed in csrc
# make check      checks style, layout, types and the layers of imports
# make format     corrects style and layout where that can be done automatically
# make thorough   the same, and what takes minutes and says little more (pytest --thorough)
# make coverage   runs every test and prints the line and branch coverage of dhn/
# make docs       builds the documentation as a site in build/site, and checks its links
# make wheel      builds a wheel in dist/
# make bench      times the operators and the networks
# make gpu-check  builds, tests and times the CUDA kernels on a machine with a GPU
# make clean      removes everything that was built, except .venv
#
# PYTHON=python3.12   the interpreter of .venv: 3.10 to 3.13; 3.11 is preferred
# TORCH_INDEX=URL     the package index of torch; by default tools/install_torch.py decides
# PYTEST="OPTIONS"    for pytest, like PYTEST="-n 0 -x tests/data"

PYTHON ?=
TORCH_INDEX ?=
PYTEST ?= -n auto --maxprocesses 8 --dist worksteal

BIN := .venv/bin

.PHONY: demo test thorough install build check format coverage docs wheel bench gpu-check clean

demo: build demo/photos demo/stats.json demo/predictions
	@echo "People in photographs and a video: demo/photos"
	@echo "AP on unseen crowds, with flip test: demo/stats.json; images: demo/predictions"

# Tests run side by side and their networks are small: more threads would only compete.
test: build check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

thorough: PYTEST += --thorough
thorough: test

# --- installation -------------------------------------------------------------------------------

.venv/bin/python:
	tools/create_venv.sh .venv $(PYTHON)

.venv/torch: constraints.txt tools/install_torch.py | .venv/bin/python
	$(BIN)/python tools/install_torch.py $(TORCH_INDEX)
	@touch $@

.venv/installed: .venv/torch pyproject.toml setup.py
	$(BIN)/python -m pip install -q -c constraints.txt "setuptools>=77" wheel ninja numpy
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

install: .venv/installed

build: install
	@$(BIN)/python setup.py -q build_ext --inplace

# --- the demo -----------------------------------------------------------------------------------

# By the network that dhn brings. It is drawn into a folder of its own first: what was interrupted
# is done again.
demo/photos: | build
	rm -rf demo/unfinished
	$(BIN)/dhn predict examples/images examples/clip.mp4 -o demo/unfinished --json-output demo/unfinished
	mv demo/unfinished $@
	@echo "People in photographs and a video: $@"

demo/run/best.pt:
	@if [ -e demo/run/last.pt ]; then $(BIN)/dhn train --resume demo/run; \
	else $(BIN)/dhn train --config demo --output demo/run data.dataset=demo/crowds; fi

demo/stats.json: | demo/run/best.pt
	$(BIN)/dhn eval --checkpoint demo/run/best.pt --dataset demo/crowds --split test --flip --output $@

demo/predictions: | demo/run/best.pt
	$(BIN)/dhn predict $$($(BIN)/python -m json.tool demo/crowds/json/crowdpose_test.json | sed -n 's/.*"file_name": "\(.*\)".*/demo\/crowds\/images\/\1/p' | head -24) \
	  --checkpoint demo/run/best.pt --flip -o $@

# --- checks -------------------------------------------------------------------------------------

CPP = $(shell git ls-files 'csrc/*' 'tests/*' | grep -E '\.(cpp|h|hpp|cu|cuh)$$')

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

coverage: build
	rm -rf build/coverage
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest $(PYTEST)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report
	@$(BIN)/coverage json -q -o build/coverage/report.json
	@$(BIN)/python -c "import json; t = json.load(open('build/coverage/report.json'))['totals']; \
	  print(*(f'{what} {t[key]:.1f} %' for what, key in (('lines', 'percent_statements_covered'), \
	  ('branches', 'percent_branches_covered'))), sep=', ')"

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: build
	$(BIN)/python tools/build_wheel.py dist

bench: build
	$(BIN)/dhn bench

# In any Python that has a CUDA build of torch: PYTHON=python3 make gpu-check. It needs neither a
# network nor .venv.
gpu-check:
	PYTHON=$(or $(PYTHON),python3) benchmarks/gpu_check.sh

clean:
	rm -rf build dist *.egg-info demo dhn/*.so
