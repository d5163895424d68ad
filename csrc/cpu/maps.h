// Maps read at another resolution, a value or a block at a time; never a whole upsampled map.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "common/bilinear.h"
#include "cpu/vectorize.h"

namespace dhn {

// `bilinear_tap` of every output pixel, by additions instead of a division for each.
inline std::vector<Tap> bilinear_taps(int in_size, int out_size) {
  std::vector<Tap> taps(out_size);
  const int double_size = 2 * out_size;
  int low = 0, rest = in_size - out_size;
  for (Tap& tap : taps) {
    for (; rest >= double_size; rest -= double_size) ++low;
    const float weight = static_cast<float>(std::max(rest, 0)) / static_cast<float>(double_size);
    tap = low < in_size - 1 ? Tap{low, low + 1, weight} : Tap{in_size - 1, in_size - 1, 0.0f};
    rest += 2 * in_size;
  }
  return taps;
}

// The least weight with which a pixel between two map pixels reads either of them: 1/4 at twice the
// resolution. Pixels before the first map pixel's centre read that one alone and do not count.
inline float least_share(const std::vector<Tap>& taps, int64_t in_size) {
  const int64_t out_size = static_cast<int64_t>(taps.size());
  float least = 0.5f;
  for (int64_t i = 0; i < out_size; ++i) {
    const bool alone = (2 * i + 1) * in_size < out_size || taps[i].low == taps[i].high;
    if (!alone) least = std::min({least, taps[i].weight, 1.0f - taps[i].weight});
  }
  return least;
}

// How maps [h, w] are read at [H, W]; one Grid serves all maps of a call.
struct Grid {
  int h, w, H, W;
  std::vector<Tap> rows, columns;
  float share_y, share_x;  // least_share of rows and of columns

  Grid(int64_t h, int64_t w, int64_t H, int64_t W)
      : h(static_cast<int>(h)),
        w(static_cast<int>(w)),
        H(static_cast<int>(H)),
        W(static_cast<int>(W)),
        rows(bilinear_taps(this->h, this->H)),
        columns(bilinear_taps(this->w, this->W)),
        share_y(least_share(rows, this->h)),
        share_x(least_share(columns, this->w)) {}

  size_t area() const { return size_t(h) * w; }

  // Value of `map` at input pixel (X, Y).
  float at(const float* map, int X, int Y) const {
    const Tap &row = rows[Y], &column = columns[X];
    const float *top = map + size_t(row.low) * w, *bottom = map + size_t(row.high) * w;
    return bilinear(top[column.low], top[column.high], bottom[column.low], bottom[column.high],
                    column.weight, row.weight);
  }
};

// Input pixels [left, right) x [top, bottom).
struct Block {
  int left, top, right, bottom;
  int width() const { return right - left; }
  int height() const { return bottom - top; }
};

DHN_INLINE void blend_lines(const float* low, const float* high, float weight, int count,
                            float* out) {
  for (int i = 0; i < count; ++i) out[i] = blend(low[i], high[i], weight);
}

// Columns [left, right) of the input from one row of a map.
void stretch(const Grid& grid, const float* row, int left, int right, float* out);

// Reads a block of input pixels. Every map row it needs is stretched along x once.
class BlockReader {
 public:
  explicit BlockReader(const Grid& grid) : grid_(grid) {}

  // out: [block.height(), block.width()], rows `stride` apart.
  void read(const float* map, const Block& block, float* out, int stride);

 private:
  const Grid& grid_;
  std::vector<float> lines_;  // the stretched rows of a block
};

}  // namespace dhn
