// Checks and small helpers of the operators on every device. A failed check raises RuntimeError.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <vector>

namespace dhn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_floating(const Tensor& t, const char* name) {
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
                      type == ScalarType::Half || type == ScalarType::BFloat16,
                  name, " must be floating point");
}

inline void check_dim(const Tensor& t, int64_t dim, const char* shape) {
  STD_TORCH_CHECK(t.dim() == dim, "expected ", shape, ", got ", t.dim(), " dimensions");
}

// Maps [B, J, h, w] read at height x width: at least a pixel on either side, indices within int32.
inline void check_maps(const Tensor& maps, int64_t height, int64_t width) {
  check_floating(maps, "heatmaps");
  check_dim(maps, 4, "heatmaps [B, J, h, w]");
  STD_TORCH_CHECK(maps.size(2) > 0 && maps.size(3) > 0, "heatmaps have no pixels");
  STD_TORCH_CHECK(height > 0 && width > 0, "size must be positive, got ", height, " x ", width);
  STD_TORCH_CHECK(height * width < (int64_t{1} << 31) && maps.size(2) < (1 << 15) &&
                      maps.size(3) < (1 << 15) && height < (1 << 15) && width < (1 << 15),
                  "maps may have 32767 pixels a side");
}

// Tags [B, J, T, h, w] that belong to heatmaps [B, J, h, w].
inline void check_tags(const Tensor& tags, const Tensor& heatmaps) {
  check_floating(tags, "tags");
  check_dim(tags, 5, "tags [B, J, T, h, w]");
  STD_TORCH_CHECK(tags.size(0) == heatmaps.size(0) && tags.size(1) == heatmaps.size(1) &&
                      tags.size(3) == heatmaps.size(2) && tags.size(4) == heatmaps.size(3),
                  "tags [B, J, T, h, w] do not fit heatmaps [B, J, h, w]");
}

// Keypoints [B, P, J, 3] and one map's stride, sigma and tau.
inline void check_target(const Tensor& keypoints, double stride, double sigma, double tau,
                         bool square) {
  check_dim(keypoints, 4, "keypoints [B, P, J, 3]");
  STD_TORCH_CHECK(keypoints.size(3) == 3, "keypoints must be [B, P, J, 3], got ", keypoints.size(3),
                  " in the last dimension");
  STD_TORCH_CHECK(stride > 0 && sigma > 0 && (square || tau > 0),
                  "stride, sigma and tau must be positive");
}

inline Tensor as_type(const Tensor& t, ScalarType type) {
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

inline Tensor as_float32(const Tensor& t) { return as_type(t, ScalarType::Float); }

}  // namespace dhn
