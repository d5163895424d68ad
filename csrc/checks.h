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

inline void check_peaks(int64_t k, int64_t kernel, double threshold) {
  STD_TORCH_CHECK(k > 0, "k must be positive, got ", k);
  STD_TORCH_CHECK(kernel > 0 && kernel % 2 == 1, "kernel must be odd, got ", kernel);
  STD_TORCH_CHECK(threshold >= 0, "threshold must not be negative, got ", threshold);
}

// Indices [B, J, K] into heatmaps [B, J, h, w]; their values are for the kernels to check.
inline void check_indices(const Tensor& indices, const Tensor& heatmaps) {
  check_dim(indices, 3, "indices [B, J, K]");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long, "indices must be int64");
  STD_TORCH_CHECK(indices.size(0) == heatmaps.size(0) && indices.size(1) == heatmaps.size(1),
                  "indices [B, J, K] do not fit heatmaps [B, J, h, w]");
}

inline void check_order(const std::vector<int64_t>& order, int64_t J) {
  std::vector<char> named(J, 0);
  for (const int64_t j : order) {
    STD_TORCH_CHECK(j >= 0 && j < J && !named[j], "joint order must name each of ", J,
                    " joints once");
    named[j] = 1;
  }
  STD_TORCH_CHECK(static_cast<int64_t>(order.size()) == J, "joint order must name each of ", J,
                  " joints once");
}

// What group_tags takes.
inline void check_candidates(const Tensor& scores, const Tensor& xy, const Tensor& tags,
                             const std::vector<int64_t>& order, int64_t max_people) {
  check_dim(scores, 3, "scores [B, J, K]");
  check_dim(xy, 4, "xy [B, J, K, 2]");
  check_dim(tags, 4, "tags [B, J, K, T]");
  for (int64_t i = 0; i < 3; ++i) {
    STD_TORCH_CHECK(xy.size(i) == scores.size(i) && tags.size(i) == scores.size(i),
                    "scores [B, J, K], xy [B, J, K, 2] and tags [B, J, K, T] do not fit");
  }
  STD_TORCH_CHECK(xy.size(3) == 2, "xy must be [B, J, K, 2]");
  STD_TORCH_CHECK(max_people > 0, "max_people must be positive, got ", max_people);
  check_order(order, scores.size(1));
}

// People [B, M, J, 3 + T] and counts [B] as group_tags returns them, for maps of the same images.
inline void check_people(const Tensor& people, const Tensor& counts, const Tensor& tags) {
  check_dim(people, 4, "people [B, M, J, 3 + T]");
  check_dim(counts, 1, "counts [B]");
  STD_TORCH_CHECK(people.size(0) == tags.size(0) && people.size(2) == tags.size(1) &&
                      people.size(3) == 3 + tags.size(2) && counts.size(0) == tags.size(0),
                  "people [B, M, J, 3 + T] and counts [B] do not fit tags [B, J, T, h, w]");
  STD_TORCH_CHECK(counts.scalar_type() == ScalarType::Long, "counts must be int64");
}

// What aggregate_heatmaps takes: as many quarter as half maps, all alike, and the same flipped or
// none.
inline void check_pyramid(const std::vector<Tensor>& quarter, const std::vector<Tensor>& half,
                          const std::vector<Tensor>& quarter_flipped,
                          const std::vector<Tensor>& half_flipped,
                          const std::vector<int64_t>& flip) {
  STD_TORCH_CHECK(!quarter.empty() && quarter.size() == half.size(),
                  "expected as many quarter as half maps, at least one");
  STD_TORCH_CHECK((quarter_flipped.empty() && half_flipped.empty()) ||
                      (quarter_flipped.size() == half.size() && half_flipped.size() == half.size()),
                  "expected as many flipped maps as plain ones, or none");
  const auto check_alike = [](const std::vector<Tensor>& maps, const Tensor& model) {
    for (const Tensor& map : maps) {
      check_maps(map, 1, 1);
      for (int64_t i = 0; i < 4; ++i) {
        STD_TORCH_CHECK(map.size(i) == model.size(i), "maps of one stride differ in shape");
      }
      STD_TORCH_CHECK(map.scalar_type() == model.scalar_type(), "maps differ in dtype");
    }
  };
  check_alike(quarter, quarter[0]);
  check_alike(quarter_flipped, quarter[0]);
  check_alike(half, half[0]);
  check_alike(half_flipped, half[0]);
  STD_TORCH_CHECK(quarter[0].size(0) == half[0].size(0) && quarter[0].size(1) == half[0].size(1),
                  "quarter and half maps differ in images or joints");
  if (quarter_flipped.empty()) return;
  STD_TORCH_CHECK(static_cast<int64_t>(flip.size()) == half[0].size(1),
                  "flip must have one index per joint");
  for (const int64_t j : flip) {
    STD_TORCH_CHECK(j >= 0 && j < half[0].size(1), "flip names joint ", j, ", which is not there");
  }
}

inline Tensor as_type(const Tensor& t, ScalarType type) {
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

inline Tensor as_float32(const Tensor& t) { return as_type(t, ScalarType::Float); }

}  // namespace dhn
