// The network's heatmaps, coarse and fine, plain and flipped, averaged in one pass over the inputs.
//
// A block makes one tile of one joint's result. For each pass it averages the quarter maps under
// the tile into shared memory, upsamples them from there, and adds the half maps, read in accesses
// of 4 pixels. The flipped pass is read where the mirrored tile lies, in the channel of the
// opposite joint, and its 4 pixels are reversed in registers.
#pragma once
#include "cuda/bilinear.cuh"

namespace dhn::cuda {

constexpr int kMaxStages = 4, kMaxFlipJoints = 256;
constexpr int kAggregateTileW = 64, kAggregateTileH = 16;
constexpr int kAggregateThreads = kAggregateTileW * kAggregateTileH / 4;

// The maps of one forward pass: one of each resolution per stage.
template <typename map_t>
struct Pass {
  const map_t* quarter[kMaxStages];  // [B, J, h / 2, w / 2]
  const map_t* half[kMaxStages];     // [B, J, h, w]
};
struct Flip {
  unsigned char joint[kMaxFlipJoints];
};

// The averaged quarter maps under a tile, with one pixel around it.
struct QuarterTile {
  float means[kAggregateTileH / 2 + 2][kAggregateTileW / 2 + 2];
};

// bilinear_tap(out, in_size, 2 * in_size) without its divisions; beyond the output the last pixel.
__device__ __forceinline__ Tap doubling_tap(int out, int in_size) {
  const int low = out == 0 ? 0 : (out - 1) / 2;
  if (low >= in_size - 1) return {in_size - 1, in_size - 1, 0.f};
  return {low, low + 1, out == 0 ? 0.f : out % 2 == 1 ? 0.25f : 0.75f};
}

// Adds (mean(half) + upsample(mean(quarter))) / 2 at columns u .. u + 3 of row v, mirrored or not.
// `plane` is that of the pass; (x0, y0) is the tile. Called by all threads of the block together.
template <bool kMirror, typename map_t>
__device__ __forceinline__ void add_pass(float (&sums)[4], const Pass<map_t>& pass, int stages,
                                         std::int64_t plane, int h, int w, int x0, int y0, int u,
                                         int v, QuarterTile& tile) {
  const float share = 1.f / static_cast<float>(stages);
  const int columns = min(kAggregateTileW, w - x0);
  const int first = kMirror ? w - x0 - columns : x0;
  const int left = doubling_tap(first, w / 2).low, top = doubling_tap(y0, h / 2).low;
  const int span_w = doubling_tap(first + columns - 1, w / 2).high + 1 - left;
  const int span_h = doubling_tap(y0 + kAggregateTileH - 1, h / 2).high + 1 - top;
  for (int i = threadIdx.x; i < span_w * span_h; i += kAggregateThreads) {
    const int row = i / span_w, column = i % span_w;
    const std::int64_t at = (plane * (h / 2) + top + row) * (w / 2) + left + column;
    float sum = 0;
#pragma unroll  // pointers are indexed by constants only, and stay out of local memory
    for (int s = 0; s < kMaxStages; ++s)
      if (s < stages) sum += static_cast<float>(pass.quarter[s][at]);
    tile.means[row][column] = sum * share;
  }
  __syncthreads();

  if (v < h) {
    float half[4] = {};
#pragma unroll
    for (int s = 0; s < kMaxStages; ++s) {
      if (s >= stages) break;
      float values[4];
      load4(pass.half[s] + (plane * h + v) * w, kMirror ? w - 4 - u : u, w, values);
#pragma unroll
      for (int k = 0; k < 4; ++k) half[k] += values[kMirror ? 3 - k : k];
    }
    const Tap y = doubling_tap(v, h / 2);
    const float* const upper = tile.means[y.low - top];
    const float* const lower = tile.means[y.high - top];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (u + k >= w) continue;
      const Tap x = doubling_tap(kMirror ? w - 1 - u - k : u + k, w / 2);
      const float up = bilinear(upper[x.low - left], upper[x.high - left], lower[x.low - left],
                                lower[x.high - left], x.weight, y.weight);
      sums[k] += (half[k] * share + up) * 0.5f;
    }
  }
  __syncthreads();  // the next pass fills the tile anew
}

template <typename map_t>
__global__ void __launch_bounds__(kAggregateThreads, 3)
    aggregate_heatmaps_kernel(const Pass<map_t> plain, const Pass<map_t> flipped, const Flip flip,
                              bool has_flipped, int stages, int J, int h, int w, int tiles_x,
                              int tiles, float* __restrict__ out) {
  __shared__ QuarterTile shared;
  const int tile = blockIdx.x % tiles;
  const std::int64_t plane = blockIdx.x / tiles;
  const int joint = static_cast<int>(plane % J);
  const int x0 = tile % tiles_x * kAggregateTileW, y0 = tile / tiles_x * kAggregateTileH;
  const int u = x0 + static_cast<int>(threadIdx.x) % (kAggregateTileW / 4) * 4;
  const int v = y0 + static_cast<int>(threadIdx.x) / (kAggregateTileW / 4);

  float sums[4] = {};
  add_pass<false>(sums, plain, stages, plane, h, w, x0, y0, u, v, shared);
  if (has_flipped) {
    add_pass<true>(sums, flipped, stages, plane - joint + flip.joint[joint], h, w, x0, y0, u, v,
                   shared);
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[k] *= 0.5f;
  }
  if (v < h) store4(out + (plane * h + v) * w, u, w, sums);
}

}  // namespace dhn::cuda
