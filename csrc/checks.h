// What the operators demand of their arguments on every device: one function per operator, named
// after it. A failed check raises RuntimeError. A device with narrower limits checks those itself.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/DeviceType.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/gaussian.h"

namespace dhn {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---- What several operators take.

inline std::string device_name(const Tensor& t) {
  const torch::stable::Device device = t.device();
  switch (device.type()) {
    case torch::headeronly::DeviceType::CPU:
      return "cpu";
    case torch::headeronly::DeviceType::CUDA:
      return "cuda:" + std::to_string(device.index());
    case torch::headeronly::DeviceType::Meta:
      return "meta";
    default:
      return "device type " + std::to_string(static_cast<int>(device.type()));
  }
}

// PyTorch picks an operator's code by any of its tensors: a kernel would read the memory of another
// device.
inline void check_device(const char* name, const Tensor& t, const char* other_name,
                         const Tensor& other) {
  STD_TORCH_CHECK(other.device() == t.device(), "all tensors must be on one device, but ", name,
                  " is on ", device_name(t), " and ", other_name, " on ", device_name(other));
}
inline void check_device(const char* name, const Tensor& t, const char* other_name,
                         const std::optional<Tensor>& other) {
  if (other) check_device(name, t, other_name, *other);
}
inline void check_device(const char* name, const Tensor& t, const char* other_name,
                         const std::vector<Tensor>& others) {
  for (const Tensor& other : others) check_device(name, t, other_name, other);
}

inline void check_floating(const Tensor& t, const char* name) {
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
                      type == ScalarType::Half || type == ScalarType::BFloat16,
                  name, " must be floating point");
}

// The number of elements of an array, whose sizes are checked before they are multiplied: each is
// an int with room to spare, and the product is an int64 even in bytes. A size of 0 does not hide
// the others, which end loops, too.
inline int64_t checked_count(const char* shape, IntHeaderOnlyArrayRef sizes) {
  constexpr int64_t kMostOfOne = int64_t{1} << 30, kMost = int64_t{1} << 40;
  int64_t count = 1;
  for (const int64_t size : sizes) {
    const int64_t factor = std::max<int64_t>(size, 1);
    STD_TORCH_CHECK(size >= 0 && size <= kMostOfOne && factor <= kMost / count, shape,
                    " is too large: sizes may be up to ", kMostOfOne, " and their product up to ",
                    kMost, ", got ", size, " times ", count);
    count *= factor;
  }
  return count;
}

inline void check_dim(const Tensor& t, int64_t dim, const char* shape) {
  STD_TORCH_CHECK(t.dim() == dim, "expected ", shape, ", got ", t.dim(), " dimensions");
  checked_count(shape, t.sizes());
}

// Of candidates of a joint and of people: their pairs are counted by an int.
constexpr int64_t kMostPeople = (1 << 15) - 1;

// Of a map: common/bilinear.h counts in 32 bits.
constexpr int64_t kMostPixels = (1 << 15) - 1;

inline void check_side(int64_t pixels) {
  STD_TORCH_CHECK(pixels >= 0 && pixels <= kMostPixels, "maps may have ", kMostPixels,
                  " pixels a side, got ", pixels);
}

// Maps [B, J, h, w] read at height x width: at least a pixel on either side, indices within int32.
inline void check_maps(const Tensor& maps, int64_t height, int64_t width) {
  check_floating(maps, "heatmaps");
  check_dim(maps, 4, "heatmaps [B, J, h, w]");
  STD_TORCH_CHECK(maps.size(2) > 0 && maps.size(3) > 0, "heatmaps have no pixels");
  STD_TORCH_CHECK(height > 0 && width > 0, "size must be positive, got ", height, " x ", width);
  for (const int64_t pixels : {maps.size(2), maps.size(3), height, width}) check_side(pixels);
}

// Heatmaps [B, J, h, w] and tags [B, J, T, h, w] read at height x width.
inline void check_maps_with_tags(const Tensor& heatmaps, const Tensor& tags, int64_t height,
                                 int64_t width) {
  check_device("heatmaps", heatmaps, "tags", tags);
  check_maps(heatmaps, height, width);
  check_floating(tags, "tags");
  check_dim(tags, 5, "tags [B, J, T, h, w]");
  STD_TORCH_CHECK(tags.size(0) == heatmaps.size(0) && tags.size(1) == heatmaps.size(1) &&
                      tags.size(3) == heatmaps.size(2) && tags.size(4) == heatmaps.size(3),
                  "tags [B, J, T, h, w] do not fit heatmaps [B, J, h, w]");
}

inline void check_keypoints(const Tensor& keypoints) {
  check_dim(keypoints, 4, "keypoints [B, P, J, 3]");
  STD_TORCH_CHECK(keypoints.size(3) == 3, "keypoints must be [B, P, J, 3], got ", keypoints.size(3),
                  " in the last dimension");
}

// One map's target; `target` is "disc" or "square".
inline Gaussian<double> checked_gaussian(double stride, double sigma, double tau,
                                         const std::string& target) {
  STD_TORCH_CHECK(target == "disc" || target == "square",
                  "target must be 'disc' or 'square', got '", target, "'");
  const bool disc = target == "disc";
  // In between, nothing that is computed from them overflows in float32.
  const auto sensible = [](double length) { return length >= 1e-6 && length <= 1e6; };
  STD_TORCH_CHECK(sensible(stride) && sensible(sigma) && (sensible(tau) || !disc),
                  "stride, sigma and tau must lie in 1e-6..1e6");
  return {stride, sigma, tau, disc ? Target::disc : Target::square};
}

inline void check_people(const char* name, int64_t count) {
  STD_TORCH_CHECK(count > 0 && count <= kMostPeople, name, " must lie in 1..", kMostPeople,
                  ", got ", count);
}

inline void check_peaks(const char* name, int64_t k, int64_t kernel, double threshold) {
  constexpr int64_t kMostKernel = 255;
  check_people(name, k);
  STD_TORCH_CHECK(kernel > 0 && kernel % 2 == 1 && kernel <= kMostKernel,
                  "kernel must be odd and lie in 1..", kMostKernel, ", got ", kernel);
  STD_TORCH_CHECK(threshold >= 0, "threshold must not be negative, got ", threshold);
}

// A permutation of 0..J-1.
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

// ---- The operators.

// Returns the target of each map.
inline std::vector<Gaussian<double>> check_render_heatmaps(
    const Tensor& keypoints, const std::vector<int64_t>& heights,
    const std::vector<int64_t>& widths, const std::vector<double>& strides,
    const std::vector<double>& sigmas, const std::vector<double>& taus, const std::string& target) {
  check_keypoints(keypoints);
  const size_t maps = heights.size();
  STD_TORCH_CHECK(widths.size() == maps && strides.size() == maps && sigmas.size() == maps &&
                      taus.size() == maps,
                  "heights, widths, strides, sigmas and taus must be of one length");
  std::vector<Gaussian<double>> gaussians;
  for (size_t i = 0; i < maps; ++i) {
    check_side(heights[i]);
    check_side(widths[i]);
    checked_count("targets [B, J, h, w]",
                  {keypoints.size(0), keypoints.size(2), heights[i], widths[i]});
    gaussians.push_back(checked_gaussian(strides[i], sigmas[i], taus[i], target));
  }
  return gaussians;
}

inline void check_heatmap_mse(const Tensor& prediction, const Tensor& keypoints,
                              const std::optional<Tensor>& mask,
                              const std::optional<Tensor>& boxes) {
  check_device("prediction", prediction, "keypoints", keypoints);
  check_device("prediction", prediction, "mask", mask);
  check_device("prediction", prediction, "boxes", boxes);
  check_floating(prediction, "prediction");
  check_dim(prediction, 4, "prediction [B, J, h, w]");
  check_side(prediction.size(2));
  check_side(prediction.size(3));
  check_keypoints(keypoints);
  STD_TORCH_CHECK(
      keypoints.size(0) == prediction.size(0) && keypoints.size(2) == prediction.size(1),
      "keypoints [B, P, J, 3] do not fit prediction [B, J, h, w]");
  if (mask) {
    const int64_t dim = mask->dim();
    STD_TORCH_CHECK(
        (dim == 3 || (dim == 4 && (mask->size(1) == 1 || mask->size(1) == prediction.size(1)))) &&
            mask->size(0) == prediction.size(0) && mask->size(dim - 2) == prediction.size(2) &&
            mask->size(dim - 1) == prediction.size(3),
        "mask [B, h, w] or [B, 1 or J, h, w] does not fit prediction [B, J, h, w]");
  }
  STD_TORCH_CHECK(!boxes || (boxes->dim() == 3 && boxes->size(0) == keypoints.size(0) &&
                             boxes->size(1) == keypoints.size(1) && boxes->size(2) == 4),
                  "boxes [B, P, 4] do not fit keypoints [B, P, J, 3]");
}

inline void check_heatmap_mse_backward(const Tensor& grad, const Tensor& prediction,
                                       const Tensor& keypoints, const std::optional<Tensor>& mask,
                                       const std::optional<Tensor>& boxes) {
  check_heatmap_mse(prediction, keypoints, mask, boxes);
  check_device("prediction", prediction, "grad", grad);
  STD_TORCH_CHECK(grad.dim() == 1 && grad.size(0) == prediction.size(0), "grad must be [B]");
}

inline void check_topk_peaks(const Tensor& heatmaps, int64_t k, int64_t kernel, int64_t height,
                             int64_t width, double threshold) {
  check_maps(heatmaps, height, width);
  check_peaks("k", k, kernel, threshold);
  checked_count("peaks [B, J, K]", {heatmaps.size(0), heatmaps.size(1), k});
}

// The kernels check the values of the indices.
inline void check_read_peaks(const Tensor& heatmaps, const Tensor& tags, const Tensor& indices,
                             int64_t height, int64_t width) {
  check_maps_with_tags(heatmaps, tags, height, width);
  check_device("heatmaps", heatmaps, "indices", indices);
  check_dim(indices, 3, "indices [B, J, K]");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long, "indices must be int64");
  STD_TORCH_CHECK(indices.size(0) == heatmaps.size(0) && indices.size(1) == heatmaps.size(1),
                  "indices [B, J, K] do not fit heatmaps [B, J, h, w]");
  checked_count("xy [B, J, K, 2]", {indices.size(0), indices.size(1), indices.size(2), 2});
  checked_count("tags [B, J, K, T]",
                {indices.size(0), indices.size(1), indices.size(2), tags.size(2)});
}

inline void check_group_tags(const Tensor& scores, const Tensor& xy, const Tensor& tags,
                             const std::vector<int64_t>& order, int64_t max_people) {
  check_device("scores", scores, "xy", xy);
  check_device("scores", scores, "tags", tags);
  check_dim(scores, 3, "scores [B, J, K]");
  check_dim(xy, 4, "xy [B, J, K, 2]");
  check_dim(tags, 4, "tags [B, J, K, T]");
  for (int64_t i = 0; i < 3; ++i) {
    STD_TORCH_CHECK(xy.size(i) == scores.size(i) && tags.size(i) == scores.size(i),
                    "scores [B, J, K], xy [B, J, K, 2] and tags [B, J, K, T] do not fit");
  }
  STD_TORCH_CHECK(xy.size(3) == 2, "xy must be [B, J, K, 2]");
  STD_TORCH_CHECK(scores.size(2) <= kMostPeople, "scores may have ", kMostPeople,
                  " candidates a joint, got ", scores.size(2));
  check_people("max_people", max_people);
  check_order(order, scores.size(1));
  checked_count("people [B, J K, J, 3 + T]",
                {scores.size(0), scores.size(1), scores.size(2), scores.size(1), 3 + tags.size(3)});
}

// The kernels check the values of the counts.
inline void check_refine_people(const Tensor& heatmaps, const Tensor& tags, const Tensor& people,
                                const Tensor& counts, int64_t height, int64_t width) {
  check_maps_with_tags(heatmaps, tags, height, width);
  check_device("heatmaps", heatmaps, "people", people);
  check_device("heatmaps", heatmaps, "counts", counts);
  check_dim(people, 4, "people [B, M, J, 3 + T]");
  check_dim(counts, 1, "counts [B]");
  STD_TORCH_CHECK(people.size(0) == tags.size(0) && people.size(2) == tags.size(1) &&
                      people.size(3) == 3 + tags.size(2) && counts.size(0) == tags.size(0),
                  "people [B, M, J, 3 + T] and counts [B] do not fit tags [B, J, T, h, w]");
  STD_TORCH_CHECK(counts.scalar_type() == ScalarType::Long, "counts must be int64");
}

inline void check_decode_poses(const Tensor& heatmaps, const Tensor& tags, int64_t height,
                               int64_t width, const std::vector<int64_t>& order, int64_t max_people,
                               int64_t kernel, double detection_threshold) {
  check_maps_with_tags(heatmaps, tags, height, width);
  check_peaks("max_people", max_people, kernel, detection_threshold);
  check_order(order, heatmaps.size(1));
  const int64_t B = heatmaps.size(0), J = heatmaps.size(1);
  checked_count("tags [B, J, K, T]", {B, J, max_people, tags.size(2)});
  checked_count("people [B, J K, J, 3 + T]", {B, J, max_people, J, 3 + tags.size(2)});
}

// As many quarter as half maps, all alike, and the same number of flipped ones or none.
inline void check_aggregate_heatmaps(const std::vector<Tensor>& quarter,
                                     const std::vector<Tensor>& half,
                                     const std::vector<Tensor>& quarter_flipped,
                                     const std::vector<Tensor>& half_flipped,
                                     const std::vector<int64_t>& flip) {
  STD_TORCH_CHECK(!quarter.empty() && quarter.size() == half.size(),
                  "expected as many quarter as half maps, at least one");
  STD_TORCH_CHECK((quarter_flipped.empty() && half_flipped.empty()) ||
                      (quarter_flipped.size() == half.size() && half_flipped.size() == half.size()),
                  "expected as many flipped maps as plain ones, or none");
  check_device("half[0]", half[0], "a map of quarter", quarter);
  check_device("half[0]", half[0], "another map of half", half);
  check_device("half[0]", half[0], "a map of quarter_flipped", quarter_flipped);
  check_device("half[0]", half[0], "a map of half_flipped", half_flipped);
  const auto check_alike = [&](const std::vector<Tensor>& maps, const Tensor& model) {
    for (const Tensor& map : maps) {
      check_maps(map, 1, 1);
      for (int64_t i = 0; i < 4; ++i) {
        STD_TORCH_CHECK(map.size(i) == model.size(i), "maps of one stride differ in shape");
      }
      STD_TORCH_CHECK(map.scalar_type() == half[0].scalar_type(), "maps differ in dtype");
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

// ---- Conversions.

inline Tensor as_type(const Tensor& t, ScalarType type) {
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

inline Tensor as_float32(const Tensor& t) { return as_type(t, ScalarType::Float); }

// float64 is computed in float64, everything else in float32.
inline ScalarType compute_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace dhn
