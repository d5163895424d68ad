// Where the peak of a heatmap lies between its pixels.
#pragma once

#include <cmath>

#include "compat.h"

namespace dhn {

struct Offset {
  float x, y;
};

// Second-order fit of log heatmap around map pixel (u, v), after DARK (Zhang et al., CVPR 2020,
// "Distribution-Aware Coordinate Representation"): the heatmap is taken as a Gaussian, whose log is
// a paraboloid; its peak is one Newton step away. Gradient and curvature come from the
// least-squares paraboloid over 3 x 3 pixels, which averages noise where DARK blurs the map first.
// Returns the offset from (u, v) in map pixels, each part within +-1; 0 where the fit has no peak.
template <typename Read>
DHN_HD Offset subpixel_offset(const Read& read, int u, int v, int height, int width) {
  float value[3][3];
  for (int dy = -1; dy <= 1; ++dy) {
    for (int dx = -1; dx <= 1; ++dx) {
      const int x = min_of(max_of(u + dx, 0), width - 1), y = min_of(max_of(v + dy, 0), height - 1);
      value[dy + 1][dx + 1] = std::log(max_of(read(x, y), 1e-4f));
    }
  }
  float gx = 0, gy = 0, xx = 0, yy = 0;
  for (int i = 0; i < 3; ++i) {
    gx += (value[i][2] - value[i][0]) / 6;
    gy += (value[2][i] - value[0][i]) / 6;
    xx += (value[i][2] - 2 * value[i][1] + value[i][0]) / 3;
    yy += (value[2][i] - 2 * value[1][i] + value[0][i]) / 3;
  }
  const float xy = (value[2][2] - value[2][0] - value[0][2] + value[0][0]) / 4;
  const float determinant = xx * yy - xy * xy;
  if (!(xx < 0 && yy < 0 && determinant > 0)) return {0, 0};
  const float x = (xy * gy - yy * gx) / determinant, y = (xy * gx - xx * gy) / determinant;
  return {min_of(max_of(x, -1.0f), 1.0f), min_of(max_of(y, -1.0f), 1.0f)};
}

}  // namespace dhn
