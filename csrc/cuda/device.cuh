// The one header that kernels include. nvcc sees CUDA itself, any other compiler the SIMT runner of
// tests/ops/simt, which runs the same source on the CPU.
#pragma once
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <builtins.h>
#endif

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

namespace dhn::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// The maximum, minimum or sum of a value over the warp, in every lane.
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

// Four neighbours of a row as one access, where their address allows it.
template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T values[4];
};
template <class T>
__device__ __forceinline__ bool is_quad(const T* at, int u, int width) {
  return u >= 0 && u + 4 <= width && reinterpret_cast<std::uintptr_t>(at) % sizeof(Quad<T>) == 0;
}

// Reads columns u .. u + 3 of a row; what lies outside it is 0.
template <class T, class Value>
__device__ __forceinline__ void load4(const T* __restrict__ row, int u, int width,
                                      Value (&values)[4]) {
  if (is_quad(row + u, u, width)) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(row + u);
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = static_cast<Value>(quad.values[k]);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      values[k] = u + k >= 0 && u + k < width ? static_cast<Value>(row[u + k]) : Value(0);
  }
}

// Writes columns u .. u + 3 of a row as far as it goes.
template <class T, class Value>
__device__ __forceinline__ void store4(T* __restrict__ row, int u, int width,
                                       const Value (&values)[4]) {
  if (is_quad(row + u, u, width)) {
    Quad<T> quad;
#pragma unroll
    for (int k = 0; k < 4; ++k) quad.values[k] = static_cast<T>(values[k]);
    *reinterpret_cast<Quad<T>*>(row + u) = quad;
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (u + k < width) row[u + k] = static_cast<T>(values[k]);
  }
}

}  // namespace dhn::cuda
