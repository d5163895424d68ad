// Where peaks lie and which tags stand there: a thread per candidate, a few pixels each.
#pragma once
#include "common/subpixel.h"
#include "cuda/bilinear.cuh"

namespace dhn::cuda {

// From an input pixel to a continuous position in the input (csrc/cpu/read_peaks.h).
template <typename map_t>
__device__ Offset position(const ResizedMap<map_t>& map, int X, int Y, bool subpixel) {
  if (subpixel) {
    const int u = static_cast<int>(std::int64_t{2 * X + 1} * map.w / (2 * map.W));
    const int v = static_cast<int>(std::int64_t{2 * Y + 1} * map.h / (2 * map.H));
    const auto read = [&](int x, int y) {
      return static_cast<float>(map.pixels[static_cast<std::int64_t>(y) * map.w + x]);
    };
    const Offset offset = subpixel_offset(read, u, v, map.h, map.w);
    return {(u + 0.5f + offset.x) * map.W / map.w, (v + 0.5f + offset.y) * map.H / map.h};
  }
  const float left = read_at(map, max(X - 1, 0), Y);
  const float right = read_at(map, min(X + 1, map.W - 1), Y);
  const float above = read_at(map, X, max(Y - 1, 0));
  const float below = read_at(map, X, min(Y + 1, map.H - 1));
  return {X + 0.5f + (right > left ? 0.25f : -0.25f), Y + 0.5f + (below > above ? 0.25f : -0.25f)};
}

constexpr int kReadThreads = 128;

template <typename map_t>
__global__ void __launch_bounds__(kReadThreads)
    read_peaks_kernel(const map_t* __restrict__ heatmaps, const map_t* __restrict__ tags,
                      const std::int64_t* __restrict__ indices, std::int64_t candidates, int K,
                      int T, int h, int w, int H, int W, bool subpixel, float* __restrict__ xy,
                      float* __restrict__ tag_out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kReadThreads + threadIdx.x;
  if (i >= candidates) return;
  // The CPU refuses an index outside the input; a kernel cannot raise an error, so it clamps it.
  const std::int64_t last = static_cast<std::int64_t>(H) * W - 1;
  const int index = static_cast<int>(max(std::int64_t{0}, min(indices[i], last)));
  const int X = index % W, Y = index / W;
  const std::int64_t plane = i / K, area = static_cast<std::int64_t>(h) * w;
  const Offset at =
      position(ResizedMap<map_t>{heatmaps + plane * area, h, w, H, W}, X, Y, subpixel);
  xy[2 * i] = at.x;
  xy[2 * i + 1] = at.y;
  for (int t = 0; t < T; ++t) {
    const ResizedMap<map_t> map{tags + (plane * T + t) * area, h, w, H, W};
    tag_out[i * T + t] = read_at(map, X, Y);
  }
}

}  // namespace dhn::cuda
