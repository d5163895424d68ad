#include "cpu/tiles.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

namespace dhn {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

DHN_INLINE float lesser(float a, float b) { return b < a ? b : a; }
DHN_INLINE float greater(float a, float b) { return a < b ? b : a; }

// Where the nine map rows of a row of tiles begin, from row `top` on; past the map's end the last
// row is repeated.
struct Rows {
  size_t at[kTile + 1];
  Rows(int top, int h, int w) {
    for (int i = 0; i <= kTile; ++i) at[i] = size_t(std::min(top + i, h - 1)) * w;
  }
};

// From one value per column, the extreme (`lesser` or `greater`) of the columns of every tile, with
// or without the first column of the next one. `line` has room for width + kTile values and is used
// up.
template <float (*extreme)(float, float), bool kWithNextColumn = true>
DHN_INLINE void join_columns(float* line, int width, float* out) {
  std::fill(line + width, line + width + kTile, line[width - 1]);
  const int tiles = tiles_of(width);
  for (int tile = 0; tile < tiles; ++tile)
    out[tile] = line[tile * kTile + (kWithNextColumn ? kTile : 0)];
  for (int runs = tiles * kTile / 2; runs >= tiles; runs /= 2) {  // of 2, 4, 8 columns
#pragma GCC ivdep
    for (int i = 0; i < runs; ++i) line[i] = extreme(line[2 * i], line[2 * i + 1]);
  }
  for (int tile = 0; tile < tiles; ++tile) out[tile] = extreme(out[tile], line[tile]);
}

// Whether every pixel of the maps is finite. `residue` holds, for each column, the sum of its
// pixels less itself: 0 unless one of them is NaN or infinite, or so large that the sum overflows.
// Only then is each pixel looked at.
DHN_INLINE bool all_finite(const float* residue, int width,
                           std::initializer_list<const float*> maps, size_t area) {
  float sum = 0;
  for (int x = 0; x < width; ++x) sum += residue[x];
  if (sum == 0.0f) return true;
  const auto finite = [](float pixel) { return std::isfinite(pixel); };
  return std::all_of(maps.begin(), maps.end(),
                     [&](const float* map) { return std::all_of(map, map + area, finite); });
}

// Extremes and sum of one column of a row of tiles.
struct Column {
  float low, high, sum;
  explicit DHN_INLINE Column(float value) : low(value), high(value), sum(value) {}
  DHN_INLINE void add(float value) {
    low = lesser(low, value);
    high = greater(high, value);
    sum += value;
  }
};

DHN_CLONES bool bound(const float* map, int h, int w, ColumnBuffers& buffers, float* out_low,
                      float* out_high) {
  float *low = buffers.low[0].data(), *high = buffers.high[0].data();
  float* residue = buffers.residue.data();
  std::fill(residue, residue + w, 0.0f);
  for (int top = 0; top < h; top += kTile, out_low += tiles_of(w), out_high += tiles_of(w)) {
    const Rows rows(top, h, w);
#pragma GCC ivdep
    for (int x = 0; x < w; ++x) {
      Column column(map[rows.at[0] + x]);
#pragma GCC unroll 8
      for (int i = 1; i <= kTile; ++i) column.add(map[rows.at[i] + x]);
      low[x] = column.low;
      high[x] = column.high;
      residue[x] += column.sum - column.sum;
    }
    join_columns<lesser>(low, w, out_low);
    join_columns<greater>(high, w, out_high);
  }
  return all_finite(residue, w, {map}, size_t(h) * w);
}

DHN_CLONES bool bound_pair(const float* map_a, const float* map_b, int h, int w,
                           ColumnBuffers& buffers, const PairRanges& out) {
  float *low_sum = buffers.low[0].data(), *high_sum = buffers.high[0].data();
  float *low_difference = buffers.low[1].data(), *high_difference = buffers.high[1].data();
  float* residue = buffers.residue.data();
  std::fill(residue, residue + w, 0.0f);
  for (int top = 0, first = 0; top < h; top += kTile, first += tiles_of(w)) {
    const Rows rows(top, h, w);
#pragma GCC ivdep
    for (int x = 0; x < w; ++x) {
      const float a0 = map_a[rows.at[0] + x], b0 = map_b[rows.at[0] + x];
      Column sum(a0 + b0), difference(a0 - b0);
#pragma GCC unroll 8
      for (int i = 1; i <= kTile; ++i) {
        const float a = map_a[rows.at[i] + x], b = map_b[rows.at[i] + x];
        sum.add(a + b);
        difference.add(a - b);
      }
      low_sum[x] = sum.low, high_sum[x] = sum.high;
      low_difference[x] = difference.low, high_difference[x] = difference.high;
      residue[x] += sum.sum - sum.sum;
    }
    for (int i = 0; i < 2; ++i) {
      join_columns<lesser>(buffers.low[i].data(), w, out.low[i] + first);
      join_columns<greater>(buffers.high[i].data(), w, out.high[i] + first);
    }
  }
  return all_finite(residue, w, {map_a, map_b}, size_t(h) * w);
}

// The greatest of all blends of a and b whose weights are between `share` and 1 - share.
DHN_INLINE float greatest_blend(float a, float b, float share) {
  return share * a + share * b + (1.0f - 2 * share) * greater(a, b);  // a + b might overflow
}

// Bounds the blends along every column of a tile, then blends these bounds along the row.
DHN_CLONES bool bound_blends(const float* map, int h, int w, float share_x, float share_y,
                             ColumnBuffers& buffers, float* out) {
  float *column = buffers.high[1].data(), *high = buffers.high[0].data();
  float* residue = buffers.residue.data();
  std::fill(residue, residue + w, 0.0f);
  for (int top = 0; top < h; top += kTile, out += tiles_of(w)) {
    const Rows rows(top, h, w);
    // Pixels above the map's first row read that row alone; those left of its first column
    // likewise.
    const float first = top == 0 ? 0.0f : -std::numeric_limits<float>::infinity();
#pragma GCC ivdep
    for (int x = 0; x < w; ++x) {
      float above = map[rows.at[0] + x];
      float most = above + first, sum = above;
#pragma GCC unroll 4
      for (int i = 1; i < kTile; i += 2) {
        // A blend of row i with a neighbour grows with the neighbour: the greater one is enough.
        const float middle = map[rows.at[i] + x], below = map[rows.at[i + 1] + x];
        most = greater(most, greatest_blend(middle, greater(above, below), share_y));
        sum += middle + below;
        above = below;
      }
      column[x] = greater(-kLargest, lesser(most, kLargest));  // rounding might have overflowed
      residue[x] += sum - sum;
    }
    for (int x = 0; x < w - 1; ++x) high[x] = greatest_blend(column[x], column[x + 1], share_x);
    high[w - 1] = column[w - 1];
    high[0] = greater(high[0], column[0]);
    join_columns<greater, /*kWithNextColumn=*/false>(high, w, out);
  }
  return all_finite(residue, w, {map}, size_t(h) * w);
}

}  // namespace

bool TileBounds::greatest_blend(const float* map, float* high) {
  return bound_blends(map, grid_.h, grid_.w, grid_.share_x, grid_.share_y, buffers_, high);
}

bool TileBounds::range(const float* map, float* low, float* high) {
  return bound(map, grid_.h, grid_.w, buffers_, low, high);
}

bool TileBounds::ranges_of_pair(const float* a, const float* b, const PairRanges& out) {
  return bound_pair(a, b, grid_.h, grid_.w, buffers_, out);
}

}  // namespace dhn
