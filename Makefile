# make demo    installs, trains a small network on procedural crowds, scores it, draws images
# make test    installs, runs the checks and every test
#
# make gpu-check   builds and tests the CUDA kernels and times them, where there is a GPU
#
# PYTHON=python3.12     another interpreter (3.11 is the one that is tested)
# TORCH_INDEX=URL       where torch comes from, like https://download.pytorch.org/whl/cpu

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=

BIN := .venv/bin
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)
CPP := $(shell git ls-files 'csrc/*' 'tests/*' 2>/dev/null | grep -E '\.(cpp|h|hpp|cu|cuh)$$')

.PHONY: demo test install build check format bench gpu-check clean

demo: build demo/stats.json demo/predictions
	@echo "AP on unseen crowds, with flip test: demo/stats.json; images: demo/predictions"

# Many small networks: threads would only get in each other's way.
test: build check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# --- set-up -------------------------------------------------------------------------------------

# PyPI's torch for Linux is a CUDA build of several GB: never take it by accident.
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
ifeq ($(TORCH_INDEX),)
	@if $(BIN)/pip install -q --dry-run --report - -c constraints.txt $(TORCH) | grep -q '"name": "nvidia-'; then \
	  echo "pip would install a CUDA build of torch (several GB). Say which one you want:"; \
	  echo "  CPU:   make $(MAKECMDGOALS) TORCH_INDEX=https://download.pytorch.org/whl/cpu"; \
	  echo "  CUDA:  make $(MAKECMDGOALS) TORCH_INDEX=https://download.pytorch.org/whl/cu130"; exit 1; fi
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
else
	$(BIN)/pip install -q -c constraints.txt $(TORCH) --index-url $(TORCH_INDEX)
endif
	@touch $@

.venv/installed: .venv/torch pyproject.toml setup.py
	$(BIN)/pip install -q -c constraints.txt "setuptools>=77" wheel ninja numpy
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

install: .venv/installed

build: install
	@$(BIN)/python setup.py -q build_ext --inplace

# --- the demo -----------------------------------------------------------------------------------

demo/run/best.pt:
	@if [ -e demo/run/last.pt ]; then $(BIN)/dhn train --resume demo/run; \
	else $(BIN)/dhn train --config demo --output demo/run data.dataset=demo/crowds; fi

demo/stats.json: | demo/run/best.pt
	$(BIN)/dhn eval --checkpoint demo/run/best.pt --dataset demo/crowds --split test --flip --output $@

demo/predictions: | demo/run/best.pt
	$(BIN)/dhn predict $$($(BIN)/python -m json.tool demo/crowds/json/crowdpose_test.json | sed -n 's/.*"file_name": "\(.*\)".*/demo\/crowds\/images\/\1/p' | head -24) \
	  --checkpoint demo/run/best.pt --flip -o $@

# --- checks -------------------------------------------------------------------------------------

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: build
	$(BIN)/dhn bench

# On whatever Python holds a CUDA torch: PYTHON=python3 make gpu-check. No network, no .venv.
gpu-check:
	PYTHON=$(PYTHON) benchmarks/gpu_check.sh

clean:
	rm -rf build dist *.egg-info demo dhn/*.so
