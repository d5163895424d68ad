// Non-maximum suppression and the K best of each map, read at another resolution without writing it
// out.
//
// The tiles of a map are dealt to several blocks ("strips"). A block looks at a tile's source
// pixels once; only where one exceeds the threshold and the worst of the K best so far does it put
// the upsampled tile into shared memory, take the maximum of the window along rows, then along
// columns, and offer the peaks to its Best. A second kernel merges the strips of each map, best
// ranks first. So a map is read once, and tiles below the threshold cost nothing more.
#pragma once
#include <cfloat>
#include <cmath>

#include "cuda/best.cuh"
#include "cuda/bilinear.cuh"

namespace dhn::cuda {

constexpr int kPeakTileW = 64, kPeakTileH = 16, kMaxPeakRadius = 7;

struct PeakTile {
  Tap taps_x[kPeakTileW + 2 * kMaxPeakRadius], taps_y[kPeakTileH + 2 * kMaxPeakRadius];
  float values[kPeakTileH + 2 * kMaxPeakRadius][kPeakTileW + 2 * kMaxPeakRadius];
  float row_max[kPeakTileH + 2 * kMaxPeakRadius][kPeakTileW];
};

// Fills `tile` with the output pixels around (x0, y0) and the maxima of their windows along rows.
// Outside the output the border repeats, which changes no maximum: every window that reaches beyond
// the border holds the border pixel itself. Ends with a barrier.
template <typename map_t>
__device__ void fill_tile(PeakTile& tile, const ResizedMap<map_t>& map, int x0, int y0,
                          int radius) {
  const int width = kPeakTileW + 2 * radius, height = kPeakTileH + 2 * radius;
  fill_taps(tile.taps_x, width, x0 - radius, map.w, map.W);
  fill_taps(tile.taps_y, height, y0 - radius, map.h, map.H);
  __syncthreads();
  for (int i = threadIdx.x; i < width * height; i += kBestThreads) {
    const int row = i / width, column = i % width;
    tile.values[row][column] =
        read_bilinear(map.pixels, map.w, tile.taps_y[row], tile.taps_x[column]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kPeakTileW * height; i += kBestThreads) {
    const int row = i / kPeakTileW, column = i % kPeakTileW;
    float greatest = -FLT_MAX;
    for (int d = 0; d <= 2 * radius; ++d) greatest = fmaxf(greatest, tile.values[row][column + d]);
    tile.row_max[row][column] = greatest;
  }
  __syncthreads();
}

template <typename map_t>
__global__ void __launch_bounds__(kBestThreads)
    find_peaks_kernel(const map_t* __restrict__ maps, int h, int w, int H, int W, int strips, int k,
                      int radius, float threshold, Key* __restrict__ strip_best) {
  __shared__ BestStorage storage;
  __shared__ PeakTile tile;
  const std::int64_t strip = blockIdx.x;
  const ResizedMap<map_t> map{maps + strip / strips * h * w, h, w, H, W};
  Best best(storage, k);

  const int tiles_x = (W + kPeakTileW - 1) / kPeakTileW;
  const int tiles_y = (H + kPeakTileH - 1) / kPeakTileH;
  bool finite = true;
  for (int t = static_cast<int>(strip % strips); t < tiles_x * tiles_y; t += strips) {
    const int x0 = t % tiles_x * kPeakTileW, y0 = t / tiles_x * kPeakTileH;
    const Span rows = source_span(y0, y0 + kPeakTileH, h, H);
    const Span columns = source_span(x0, x0 + kPeakTileW, w, W);
    const int span_w = columns.end - columns.begin;
    const int step_y = kBestThreads / span_w, step_x = kBestThreads % span_w;
    const float needed = best.full() ? fmaxf(threshold, key_score(best.floor())) : threshold;
    bool alive = false;
    int y = rows.begin + static_cast<int>(threadIdx.x) / span_w;
    int x = columns.begin + static_cast<int>(threadIdx.x) % span_w;
    while (y < rows.end) {
      const float value = static_cast<float>(map.pixels[static_cast<std::int64_t>(y) * w + x]);
      finite &= fabsf(value) <= FLT_MAX;
      alive |= value * (1.f + kBlendSlack) >= needed;
      x += step_x;
      y += step_y;
      if (x >= columns.end) {
        x -= span_w;
        ++y;
      }
    }
    if (!__syncthreads_or(alive)) continue;

    fill_tile(tile, map, x0, y0, radius);
    for (int i = threadIdx.x; i < kPeakTileW * kPeakTileH; i += kBestThreads) {
      const int row = i / kPeakTileW, column = i % kPeakTileW;
      const float value = tile.values[row + radius][column + radius];
      bool peak = x0 + column < W && y0 + row < H && value > threshold;
      for (int d = 0; d <= 2 * radius && peak; ++d) peak = tile.row_max[row + d][column] <= value;
      best.offer(peak ? make_key(value, static_cast<unsigned>(y0 + row) * W + x0 + column) : 0);
    }
  }
  best.offer(finite ? 0 : kPoison);
  const int count = best.sort();
  for (int i = threadIdx.x; i < k; i += kBestThreads)
    strip_best[strip * k + i] = i < count ? best[i] : 0;
}

// One block per map: the best of its strips. Best ranks of all strips come first, so that the rest
// is refused at once.
__global__ void __launch_bounds__(kBestThreads)
    merge_peaks_kernel(const Key* __restrict__ strip_best, int strips, int k,
                       float* __restrict__ scores, std::int64_t* __restrict__ indices) {
  __shared__ BestStorage storage;
  const std::int64_t map = blockIdx.x;
  const Key* const mine = strip_best + map * strips * k;
  Best best(storage, k);
  const int offered = strips * k;
  for (int first = 0; first < offered; first += kBestThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    best.offer(i < offered ? mine[i % strips * k + i / strips] : 0);
  }
  const int count = best.sort();
  const bool poisoned = best[0] == kPoison;
  for (int i = threadIdx.x; i < k; i += kBestThreads) {
    const bool used = i < count && !poisoned;
    scores[map * k + i] = poisoned ? NAN : used ? key_score(best[i]) : 0.f;
    indices[map * k + i] = used ? key_index(best[i]) : 0;
  }
}

}  // namespace dhn::cuda
