// Boxes in which a joint may be of which nobody knows whether it is there.
#pragma once

#include "common/compat.h"

namespace dhn {

// Whether the centre of pixel `index` lies between two ends, along one axis and both included; the
// ends in input pixels, stride in input pixels per map pixel. NaN holds nothing.
template <typename scalar_t>
DHN_HD bool interval_holds(scalar_t low, scalar_t high, scalar_t stride, int index) {
  const scalar_t centre = (static_cast<scalar_t>(index) + scalar_t(0.5)) * stride;
  return low <= centre && centre <= high;
}

}  // namespace dhn
