// Values of a map between its pixels: bilinear, align_corners=False, as torch's interpolate.
#pragma once

#include <cstdint>

#include "common/compat.h"

namespace dhn {

// Where output pixel `out` of `out_size` reads a line of `in_size` map pixels:
// (1 - weight) * line[low] + weight * line[high], at (out + .5) * in_size / out_size - .5, clamped.
// All but one division is in integers, so that every device finds the same weight.
struct Tap {
  int32_t low;
  int32_t high;
  float weight;
};

DHN_HD Tap bilinear_tap(int32_t out, int32_t in_size, int32_t out_size) {
  const uint32_t double_size = 2u * out_size;  // sizes are below 2^15, so all fits in 32 bits
  uint32_t numerator = (2u * out + 1u) * in_size;
  numerator = numerator > uint32_t(out_size) ? numerator - out_size : 0u;
  const int32_t low = static_cast<int32_t>(numerator / double_size);
  if (low >= in_size - 1) return {in_size - 1, in_size - 1, 0.0f};
  const float rest = static_cast<float>(numerator - low * double_size);
  return {low, low + 1, rest / static_cast<float>(double_size)};
}

// Both products are rounded before the sum: mirrored neighbours give the same bits, so that a
// symmetric peak between two pixels is a tie on every device.
DHN_HD float blend(float low, float high, float weight) {
  return add_rn(mul_rn(1.0f - weight, low), mul_rn(weight, high));
}

// First along x in both lines, then along y.
DHN_HD float bilinear(float top_left, float top_right, float bottom_left, float bottom_right,
                      float weight_x, float weight_y) {
  return blend(blend(top_left, top_right, weight_x), blend(bottom_left, bottom_right, weight_x),
               weight_y);
}

// Blends never exceed their greatest input by more than rounding; bounds are widened by this share.
constexpr float kBlendSlack = 1e-6f;

}  // namespace dhn
