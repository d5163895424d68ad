// Lets one header serve g++, nvcc and the SIMT runner of tests/ops/simt.
#pragma once

#if defined(__CUDACC__)
#define DHN_HD __host__ __device__ __forceinline__
#else
#define DHN_HD inline
#endif

namespace dhn {

template <typename T>
DHN_HD T min_of(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
DHN_HD T max_of(T a, T b) {
  return a < b ? b : a;
}

// Products and sums that are never contracted into a fused multiply-add, so that every compiler and
// device gives the same bits. The CPU sources are compiled with -ffp-contract=off.
DHN_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

DHN_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// A distance (>= 0) to the nearest whole number, half to even. Adding 2^23 leaves no fraction bits;
// unlike rint it becomes vector code on every machine.
DHN_HD float round_half_even(float distance) {
  constexpr float kTwo23 = 8388608.0f;
  return distance < kTwo23 ? add_rn(add_rn(distance, kTwo23), -kTwo23) : distance;
}

}  // namespace dhn
