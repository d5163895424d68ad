#!/usr/bin/env bash
# make gpu-check: builds the kernels for the GPU of this machine, runs their tests on it, times them,
# predict and training (gpu.py), and looks for memory errors and races with compute-sanitizer.
#
# It downloads nothing and takes less than nine minutes: each step has a limit, and what takes longer
# counts as failed. PYTHON needs a CUDA build of torch >= 2.10, pytest, hypothesis, ninja and dhn's
# dependencies, but for av, platformdirs, pycocotools and pydantic. Results go to $OUT where that is
# set, else to benchmarks/results (figures) and build/gpu-check (logs).
set -uo pipefail
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
figures=${OUT:-benchmarks/results} logs=${OUT:-build/gpu-check}
mkdir -p "$figures" "$logs"
echo "gpu-check: ${gpu#* } (compute capability ${gpu%% *})"

failed=""
step() {  # NAME SECONDS COMMAND...: runs a command, keeps its log, goes on where it fails
  local what=$1 seconds=$2 started=$SECONDS
  shift 2
  timeout "$seconds" "$@" >"$logs/gpu-$name-$what.log" 2>&1
  local status=$?
  if [ $status -eq 0 ]; then
    echo "gpu-check: $what passed in $((SECONDS - started)) s"
  else
    [ $status -eq 124 ] && echo "gpu-check: $what took more than $seconds s"
    echo "gpu-check: $what FAILED ($status), the end of $logs/gpu-$name-$what.log:"
    tail -n 25 "$logs/gpu-$name-$what.log"
    failed="$failed $what"
  fi
  return $status
}

export TORCH_CUDA_ARCH_LIST=${gpu%% *}
step build 120 "$PYTHON" setup.py -q build_ext --inplace || exit 1
step tests 90 "$PYTHON" -m pytest -m gpu -p no:cacheprovider tests/ops tests/inference/test_decode.py
step times 120 "$PYTHON" benchmarks/gpu.py --output "$figures/gpu-$name.json"
[ -e "$logs/gpu-$name-times.log" ] && cat "$logs/gpu-$name-times.log"

if command -v compute-sanitizer >/dev/null; then
  # torch's allocator gives out parts of large blocks, in which no access is out of bounds.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck synccheck initcheck; do
    step $tool 50 compute-sanitizer --tool $tool --kernel-name kernel_substring=dhn \
      --error-exitcode 1 "$PYTHON" tests/ops/simt/harness.py gpu
  done
else
  echo "gpu-check: there is no compute-sanitizer; memory errors and races were not looked for"
fi

if [ -n "$failed" ]; then
  echo "gpu-check: failed:$failed"
  exit 1
fi
echo "gpu-check: all passed in $SECONDS s"
