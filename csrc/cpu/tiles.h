// Bounds of a map over tiles, so that whole tiles can be passed over with one look.
//
// A tile is 8 x 8 map pixels. It stands for the input pixels whose upper left map pixel lies in it;
// they read the next map row and column as well, so bounds are taken over 9 x 9 pixels. A bilinear
// value lies between the least and the greatest pixel it reads, but for rounding (kBlendSlack).
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "maps.h"

namespace dhn {

constexpr int kTile = 8;

// Which input pixels each tile stands for.
class Tiles {
 public:
  explicit Tiles(const Grid& grid)
      : x_(first_pixels(grid.columns, grid.w)), y_(first_pixels(grid.rows, grid.h)) {}

  int across() const { return static_cast<int>(x_.size()) - 1; }
  int down() const { return static_cast<int>(y_.size()) - 1; }
  int count() const { return across() * down(); }

  Block block(int tile) const {
    const int tx = tile % across(), ty = tile / across();
    return {x_[tx], y_[ty], x_[tx + 1], y_[ty + 1]};
  }

 private:
  // Per tile along one axis the first input pixel, and the end of the last.
  static std::vector<int> first_pixels(const std::vector<Tap>& taps, int size) {
    std::vector<int> first;
    int pixel = 0;
    for (int start = 0; start < size; start += kTile) {
      while (pixel < static_cast<int>(taps.size()) && taps[pixel].low < start) ++pixel;
      first.push_back(pixel);
    }
    first.push_back(static_cast<int>(taps.size()));
    return first;
  }

  std::vector<int> x_, y_;
};

struct Greatest {
  static float of(float a, float b) { return a < b ? b : a; }
};
struct Least {
  static float of(float a, float b) { return b < a ? b : a; }
};

// From one value per column, the extreme of every run of nine columns that starts a tile.
// `line` has room for width + kTile values.
template <typename Extreme>
DHN_INLINE void extremes_of_tiles(float* __restrict line, int width, float* __restrict out) {
  float last[kTile + 1];  // the end of the line repeats its last value
  for (int i = 0; i <= kTile; ++i) last[i] = line[width - 1];
  std::copy(last, last + kTile, line + width);
  // Ninth column first, before the runs overwrite the line: runs of 2, 4, 8.
  int tile = 0;
  for (int x = 0; x < width; x += kTile) out[tile++] = line[x + kTile];
  for (int step = 1; step < kTile; step *= 2) {
    for (int x = 0; x < width; ++x) line[x] = Extreme::of(line[x], line[x + step]);
  }
  tile = 0;
  for (int x = 0; x < width; x += kTile, ++tile) out[tile] = Extreme::of(out[tile], line[x]);
}

// Adds 0 for finite values, NaN otherwise.
DHN_INLINE void watch_finite(const float* row, int width, float* watch) {
  for (int x = 0; x < width; ++x) watch[x] += row[x] - row[x];
}

struct TileScratch {
  std::vector<float> high, low, watch;
  explicit TileScratch(int width) : high(width + kTile), low(width + kTile), watch(width) {}
};

// Greatest (and, with `low`, least) value of every tile. False if a pixel is not finite.
DHN_INLINE bool tile_range_body(const float* map, int h, int w, TileScratch& scratch, float* high,
                                float* low) {
  float* __restrict watch = scratch.watch.data();
  float* __restrict most = scratch.high.data();
  float* __restrict least = scratch.low.data();
  std::fill(watch, watch + w, 0.0f);
  const int across = (w + kTile - 1) / kTile;
  for (int top = 0; top < h; top += kTile, high += across) {
    const int bottom = std::min(top + kTile, h - 1);
    const float* first = map + size_t(top) * w;
    std::copy(first, first + w, most);
    if (low) std::copy(first, first + w, least);
    watch_finite(first, w, watch);
    for (int y = top + 1; y <= bottom; ++y) {
      const float* __restrict row = map + size_t(y) * w;
      for (int x = 0; x < w; ++x) {
        most[x] = Greatest::of(most[x], row[x]);
        watch[x] += row[x] - row[x];
      }
      if (!low) continue;
      for (int x = 0; x < w; ++x) least[x] = Least::of(least[x], row[x]);
    }
    extremes_of_tiles<Greatest>(most, w, high);
    if (!low) continue;
    extremes_of_tiles<Least>(least, w, low);
    low += across;
  }
  float sum = 0;
  for (int x = 0; x < w; ++x) sum += watch[x];
  return sum == 0.0f;
}

}  // namespace dhn
