// Bounds of a map over tiles, so that whole tiles can be skipped.
//
// A tile is 8 x 8 map pixels. It stands for the input pixels whose upper left map pixel lies in it;
// they read the next map row and column as well, so bounds are taken over 9 x 9 pixels. A bilinear
// value lies between the least and the greatest pixel it reads, apart from rounding (kBlendSlack).
#pragma once

#include <vector>

#include "cpu/maps.h"

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

// How many tiles cover `size` map pixels.
constexpr int tiles_of(int size) { return (size + kTile - 1) / kTile; }

// Working memory: one value per column of one row of tiles.
struct ColumnBuffers {
  std::vector<float> low[2], high[2], residue;

  explicit ColumnBuffers(int width) : residue(width) {
    for (auto& line : low) line.resize(width + kTile);
    for (auto& line : high) line.resize(width + kTile);
  }
};

// Per tile the range of a + b and of a - b.
struct PairRanges {
  float* low[2];
  float* high[2];
};

// Bounds the values of every tile; the arrays have Tiles::count() places. All answer false if a
// pixel is not finite.
class TileBounds {
 public:
  explicit TileBounds(const Grid& grid) : grid_(grid), buffers_(grid.w) {}

  // The greatest blend. At twice the resolution no pixel is read with a weight over 3/4, so that
  // the peaks of noise, which decide how many tiles a search must visit, are bounded by about what
  // is left of them between pixels. Exact along columns; along rows the greatest of a tile's
  // columns are blended, which costs much less.
  bool greatest_blend(const float* map, float* high);
  // The least and the greatest pixel.
  bool range(const float* map, float* low, float* high);
  // `range` of the sum and of the difference of two maps, in one pass.
  bool ranges_of_pair(const float* a, const float* b, const PairRanges& out);

 private:
  const Grid& grid_;
  ColumnBuffers buffers_;
};

}  // namespace dhn
