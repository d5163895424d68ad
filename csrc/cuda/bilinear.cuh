// Reading maps between their pixels.
#pragma once
#include "common/bilinear.h"
#include "cuda/device.cuh"

namespace dhn::cuda {

// The taps of consecutive output pixels first, first + 1, ... of one axis; outside the output the
// border's repeat.
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

// A map of h x w pixels that is read as one of H x W.
template <typename map_t>
struct ResizedMap {
  const map_t* pixels;
  int h, w, H, W;
};

// Its value at output pixel (X, Y).
template <typename map_t>
__device__ __forceinline__ float read_at(const ResizedMap<map_t>& map, int X, int Y) {
  return read_bilinear(map.pixels, map.w, bilinear_tap(Y, map.h, map.H),
                       bilinear_tap(X, map.w, map.W));
}

// Source lines that belong to output pixels [first, last), `last` possibly beyond the output: every
// line belongs to some tile, even when shrinking.
struct Span {
  int begin, end;
};
__device__ __forceinline__ Span source_span(int first, int last, int in_size, int out_size) {
  Span span{0, in_size};
  if (first > 0) span.begin = bilinear_tap(first, in_size, out_size).low;
  if (last < out_size)
    span.end = max(bilinear_tap(last - 1, in_size, out_size).high + 1,
                   bilinear_tap(last, in_size, out_size).low);
  return span;
}

}  // namespace dhn::cuda
