// The training target's formula: Double-HigherHRNet's disc and HigherHRNet's square.
#pragma once

#include <cmath>

#include "common/compat.h"

namespace dhn {

// The two kinds of target, named as `loss.target` in a training configuration.
enum class Target { disc, square };

// What one joint of one person paints on a map. Separable: value(u, v) = factor(u) * factor(v)
// inside the disc or square.
template <typename scalar_t>
struct Gaussian {
  scalar_t stride;  // input pixels per map pixel
  scalar_t sigma;   // disc: input pixels; square: map pixels
  scalar_t tau;     // disc only, input pixels
  Target target;
};

// The same Gaussian with numbers of another type.
template <typename scalar_t>
Gaussian<scalar_t> gaussian_of(const Gaussian<double>& g) {
  return {scalar_t(g.stride), scalar_t(g.sigma), scalar_t(g.tau), g.target};
}

// Offset of map pixel `index` from a joint's coordinate, along one axis, in the unit of sigma.
// HigherHRNet truncates the centre to a whole map pixel (towards zero, as Python's int does).
template <typename scalar_t>
DHN_HD scalar_t gaussian_offset(const Gaussian<scalar_t>& g, int index, scalar_t coordinate) {
  if (g.target == Target::square) {
    return static_cast<scalar_t>(index) - std::trunc(coordinate / g.stride);
  }
  return (static_cast<scalar_t>(index) + scalar_t(0.5)) * g.stride - coordinate;
}

template <typename scalar_t>
DHN_HD scalar_t gaussian_factor(const Gaussian<scalar_t>& g, scalar_t offset) {
  const scalar_t two = g.target == Target::square ? scalar_t(2) : scalar_t(1);
  return std::exp(-(offset * offset) / (two * g.sigma * g.sigma));
}

// Greatest |offset| along one axis that still paints: 3 sigma + 1 (square) or tau (disc; there
// dx^2 + dy^2 <= tau^2 must hold as well).
template <typename scalar_t>
DHN_HD scalar_t gaussian_reach(const Gaussian<scalar_t>& g) {
  return g.target == Target::square ? scalar_t(3) * g.sigma + scalar_t(1) : g.tau;
}

// Whether a joint paints at all. A square whose centre lies outside the map is dropped; a disc
// paints what falls inside. NaN and infinite coordinates paint nothing.
template <typename scalar_t>
DHN_HD bool gaussian_counts(const Gaussian<scalar_t>& g, int height, int width, scalar_t x,
                            scalar_t y, scalar_t visibility) {
  if (!(visibility > scalar_t(0)) || !(std::fabs(x) < scalar_t(1e9)) ||
      !(std::fabs(y) < scalar_t(1e9))) {
    return false;
  }
  if (g.target == Target::disc) return true;
  const scalar_t u = std::trunc(x / g.stride), v = std::trunc(y / g.stride);
  return u >= scalar_t(0) && v >= scalar_t(0) && u < static_cast<scalar_t>(width) &&
         v < static_cast<scalar_t>(height);
}

}  // namespace dhn
