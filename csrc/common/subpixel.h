// Where the peak of a heatmap lies between its pixels.
#pragma once

#include <cmath>

#include "common/compat.h"

namespace dhn {

struct Offset {
  float x, y;
};

// Second-order fit of log heatmap around map pixel (u, v), after DARK (Zhang et al., CVPR 2020,
// "Distribution-Aware Coordinate Representation"): near a peak the heatmap is taken as a Gaussian,
// whose log is a paraboloid. DARK blurs the map and takes differences; here the paraboloid is the
// least-squares fit to 5 x 5 pixels, whose terms 1, x, y, x^2 - 2, x y, y^2 - 2 are orthogonal, so
// that each coefficient is one sum.
// `read(x, y)` gives a map pixel; outside of the map the border repeats. Returns the peak's offset
// from (u, v) in map pixels, each part within +-1; 0 where the fit has no peak.
template <typename Read>
DHN_HD Offset subpixel_offset(const Read& read, int u, int v, int height, int width) {
  const double centre = read(u, v);
  if (!(centre > 0)) return {0, 0};
  double gx = 0, gy = 0, xx = 0, xy = 0, yy = 0;
  for (int dy = -2; dy <= 2; ++dy) {
    for (int dx = -2; dx <= 2; ++dx) {
      const int x = min_of(max_of(u + dx, 0), width - 1);
      const int y = min_of(max_of(v + dy, 0), height - 1);
      const double log_share = std::log(max_of(read(x, y) / centre, 1e-2));
      gx += dx * log_share / 50;
      gy += dy * log_share / 50;
      xx += (dx * dx - 2) * log_share / 35;
      xy += dx * dy * log_share / 100;
      yy += (dy * dy - 2) * log_share / 35;
    }
  }
  const double determinant = xx * yy - xy * xy;
  // On flat ground the curvatures are rounding errors; a Gaussian of sigma 100 pixels has -1e-4.
  if (!(xx < -1e-4 && yy < -1e-4 && determinant > 1e-8)) return {0, 0};
  const double x = (xy * gy - yy * gx) / determinant, y = (xy * gx - xx * gy) / determinant;
  return {static_cast<float>(min_of(max_of(x, -1.0), 1.0)),
          static_cast<float>(min_of(max_of(y, -1.0), 1.0))};
}

}  // namespace dhn
