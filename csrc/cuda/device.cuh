// The one header that kernels include. nvcc sees CUDA itself; any other compiler the SIMT runner of
// tests/simt, which runs the same source on the CPU.
#pragma once
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <builtins.h>
#endif

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

// PLANTED(n) marks where a test can plant bug n, to see that the harness would catch it. Never true
// in a real build.
#if defined(__CUDACC__)
#define PLANTED(n) false
#else
#define PLANTED(n) (simt::config.planted == (n))
#endif

namespace dhn::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// The maximum (with Max) or minimum of a value over the warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    value = max(value, __shfl_xor_sync(kFullWarp, value, lanes));
  return value;
}
template <class T>
__device__ __forceinline__ T warp_min(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    value = min(value, __shfl_xor_sync(kFullWarp, value, lanes));
  return value;
}
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kFullWarp, value, lanes);
  return value;
}

}  // namespace dhn::cuda
