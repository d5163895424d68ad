#!/usr/bin/env bash
# make gpu-check: builds the kernels for the GPU of this machine, runs their tests on it, looks for
# memory errors and races with compute-sanitizer, and times the kernels against the PyTorch
# references. It downloads nothing: PYTHON must have a CUDA build of torch >= 2.10, pytest and dhn's
# other dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD

gpu=$("$PYTHON" - <<'PY'
try:
    import torch
except ImportError:
    raise SystemExit
if torch.cuda.is_available():
    print("%d.%d" % torch.cuda.get_device_capability(), torch.cuda.get_device_name())
PY
)
if [ -z "$gpu" ]; then
  echo "gpu-check: skipped, $PYTHON has no torch that finds a CUDA GPU"
  exit 0
fi
name=$(echo "${gpu#* }" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
echo "gpu-check: ${gpu#* } (compute capability ${gpu%% *})"

TORCH_CUDA_ARCH_LIST=${gpu%% *} "$PYTHON" setup.py -q build_ext --inplace
"$PYTHON" -m pytest -m gpu tests/ops tests/inference/test_decode.py
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    compute-sanitizer --tool $tool --error-exitcode 1 "$PYTHON" tests/ops/simt/harness.py gpu
  done
else
  echo "gpu-check: there is no compute-sanitizer; memory errors and races were not looked for"
fi
"$PYTHON" -m dhn bench --kernels --json-output "benchmarks/results/gpu-$name.json"
