// Reading maps between their pixels.
#pragma once
#include "../common/bilinear.h"
#include "device.cuh"

namespace dhn::cuda {

// The taps of consecutive output pixels first, first + 1, ... of one axis; those outside the output
// are clamped.
__device__ __forceinline__ void fill_taps(Tap* taps, int count, int first, int in_size,
                                          int out_size) {
  for (int i = threadIdx.x; i < count; i += blockDim.x)
    taps[i] = bilinear_tap(max(0, min(first + i, out_size - 1)), in_size, out_size);
}

template <typename map_t>
__device__ __forceinline__ float read_bilinear(const map_t* __restrict__ pixels, int w,
                                               const Tap& y, const Tap& x) {
  const map_t* const top = pixels + static_cast<std::int64_t>(y.low) * w;
  const map_t* const bottom = pixels + static_cast<std::int64_t>(y.high) * w;
  return bilinear(static_cast<float>(top[x.low]), static_cast<float>(top[x.high]),
                  static_cast<float>(bottom[x.low]), static_cast<float>(bottom[x.high]), x.weight,
                  y.weight);
}

}  // namespace dhn::cuda
