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

// Rounds a distance (>= 0) to the nearest whole number, half to even. Adding 2^23 leaves no
// fraction bits; unlike rint, this becomes vector code on every machine.
DHN_HD float round_half_even(float distance) {
  constexpr float kTwo23 = 8388608.0f;
  return distance < kTwo23 ? add_rn(add_rn(distance, kTwo23), -kTwo23) : distance;
}

// Tags of a diverged network may be so large that sums and squares overflow. Whatever is farther
// away than this is this far away, so that costs stay finite; so is NaN, inf - inf.
constexpr float kFarthest = 1e15f;

DHN_HD float limited_distance(float distance) {
  return distance < kFarthest ? distance : kFarthest;
}

// A mean of finite tags whose sum may have overflowed, made finite: NaN, inf - inf, becomes 0.
DHN_HD float finite_mean(float mean) {
  constexpr float kMost = 3.402823466e38f;
  return mean != mean ? 0.0f : max_of(-kMost, min_of(mean, kMost));
}

}  // namespace dhn
