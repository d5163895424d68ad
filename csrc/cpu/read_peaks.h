// Where a peak lies, and which tags stand there (ops.cpp: read_peaks).
#pragma once

#include "common/subpixel.h"
#include "cpu/maps.h"

namespace dhn {

// `map` is one heatmap [h, w]; (X, Y) an input pixel. Returns input coordinates.
inline Offset position(const Grid& grid, const float* map, int X, int Y, bool subpixel) {
  if (subpixel) {
    const int u = static_cast<int>(int64_t(2 * X + 1) * grid.w / (2 * grid.W));
    const int v = static_cast<int>(int64_t(2 * Y + 1) * grid.h / (2 * grid.H));
    const auto read = [&](int x, int y) { return map[size_t(y) * grid.w + x]; };
    const Offset offset = subpixel_offset(read, u, v, grid.h, grid.w);
    return {(u + 0.5f + offset.x) * grid.W / grid.w, (v + 0.5f + offset.y) * grid.H / grid.h};
  }
  const float left = grid.at(map, std::max(X - 1, 0), Y);
  const float right = grid.at(map, std::min(X + 1, grid.W - 1), Y);
  const float above = grid.at(map, X, std::max(Y - 1, 0));
  const float below = grid.at(map, X, std::min(Y + 1, grid.H - 1));
  return {X + 0.5f + (right > left ? 0.25f : -0.25f), Y + 0.5f + (below > above ? 0.25f : -0.25f)};
}

// One peak of `map` at `index` = Y * W + X, with tags [T, h, w] -> xy [2], values [T].
inline void read_peak(const Grid& grid, const float* map, const float* tags, int64_t T,
                      int64_t index, bool subpixel, float* xy, float* values) {
  const int X = static_cast<int>(index % grid.W), Y = static_cast<int>(index / grid.W);
  const Offset at = position(grid, map, X, Y, subpixel);
  xy[0] = at.x;
  xy[1] = at.y;
  for (int64_t t = 0; t < T; ++t) values[t] = grid.at(tags + t * grid.area(), X, Y);
}

}  // namespace dhn
