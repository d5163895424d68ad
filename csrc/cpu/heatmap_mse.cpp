#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "common/boxes.h"
#include "cpu/shapes.h"

namespace dhn {
namespace {

// sum of mask * (prediction - drawn)^2 over a row; `drawn` is the target's row.
// Sixteen running sums, because the compiler may not reorder a single one.
template <typename scalar_t>
DHN_INLINE double squared_error(const scalar_t* prediction, const scalar_t* drawn,
                                const scalar_t* mask, int width) {
  constexpr int kLanes = 16;
  scalar_t sums[kLanes] = {};
  int u = 0;
  for (; u + kLanes <= width; u += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const scalar_t error = prediction[u + lane] - drawn[u + lane];
      sums[lane] += mask[u + lane] * (error * error);
    }
  }
  double total = 0;
  for (; u < width; ++u) {
    const scalar_t error = prediction[u] - drawn[u];
    total += mask[u] * (error * error);
  }
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
  return total;
}

template <typename scalar_t>
DHN_INLINE void error_gradient(const scalar_t* prediction, const scalar_t* drawn,
                               const scalar_t* mask, int width, scalar_t scale, scalar_t* out) {
  for (int u = 0; u < width; ++u) out[u] = scale * mask[u] * (prediction[u] - drawn[u]);
}

// The map pixels of a box: rows [top, bottom), columns [left, right).
struct PixelBox {
  int top, bottom, left, right;
};

// The map pixels [begin, end) of one axis between two ends: estimated with a pixel to spare, then
// trimmed by the centres themselves, so that rounding decides nothing.
template <typename scalar_t>
void cover(scalar_t low, scalar_t high, scalar_t stride, int size, int& begin, int& end) {
  begin = end = 0;
  if (!(low <= high)) return;
  begin = static_cast<int>(std::clamp(low / stride - 2, scalar_t(0), scalar_t(size)));
  end = static_cast<int>(std::clamp(high / stride + 2, scalar_t(0), scalar_t(size)));
  while (begin < end && !interval_holds(low, high, stride, begin)) ++begin;
  while (begin < end && !interval_holds(low, high, stride, end - 1)) --end;
}

// One plane and the rows it works with: `drawn` is a row of the target, `zeros` and `ones` stand in
// for a row that no shape touches and for an absent mask (they stay in the cache and cost nothing),
// `weights` is a row of the mask without what is unknown.
template <typename scalar_t>
struct Plane {
  const Shapes<scalar_t>* shapes;
  const std::vector<PixelBox>* unknown;
  const scalar_t* prediction;  // [height, width]
  const scalar_t* mask;        // [height, width] or null
  int height, width;
  scalar_t* drawn;
  scalar_t* weights;
  const scalar_t* zeros;
  const scalar_t* ones;
};

// The mask of row v without the pixels in boxes where nothing is drawn.
template <typename scalar_t>
DHN_INLINE const scalar_t* known(const Plane<scalar_t>& p, int v, const scalar_t* drawn,
                                 const scalar_t* mask) {
  bool copied = false;
  for (const PixelBox& box : *p.unknown) {
    if (v < box.top || v >= box.bottom) continue;
    if (!copied) std::copy(mask, mask + p.width, p.weights);
    copied = true;
    for (int u = box.left; u < box.right; ++u) {
      p.weights[u] = drawn[u] == scalar_t(0) ? scalar_t(0) : p.weights[u];
    }
  }
  return copied ? p.weights : mask;
}

template <typename scalar_t, typename Row>
DHN_INLINE void each_row(const Plane<scalar_t>& p, const Row& row) {
  for (int v = 0; v < p.height; ++v) {
    bool painted = false;
    for (const Shape<scalar_t>& shape : p.shapes->all()) {
      if (v < shape.top || v >= shape.bottom) continue;
      if (!painted) std::fill(p.drawn, p.drawn + p.width, scalar_t(0));
      painted = true;
      p.shapes->paint_row(shape, v, p.drawn);
    }
    const size_t at = size_t(v) * p.width;
    const scalar_t* drawn = painted ? p.drawn : p.zeros;
    row(at, drawn, known(p, v, drawn, p.mask ? p.mask + at : p.ones));
  }
}

template <typename scalar_t>
DHN_INLINE double plane_error_body(const Plane<scalar_t>& p) {
  double total = 0;
  each_row(p, [&](size_t at, const scalar_t* drawn, const scalar_t* mask)
                  __attribute__((always_inline)) {
                    total += squared_error(p.prediction + at, drawn, mask, p.width);
                  });
  return total;
}

template <typename scalar_t>
DHN_INLINE void plane_gradient_body(const Plane<scalar_t>& p, scalar_t scale, scalar_t* out) {
  each_row(p, [&](size_t at, const scalar_t* drawn, const scalar_t* mask)
                  __attribute__((always_inline)) {
                    error_gradient(p.prediction + at, drawn, mask, p.width, scale, out + at);
                  });
}

DHN_CLONES double plane_error(const Plane<float>& p) { return plane_error_body(p); }
DHN_CLONES double plane_error(const Plane<double>& p) { return plane_error_body(p); }
DHN_CLONES void plane_gradient(const Plane<float>& p, float scale, float* out) {
  plane_gradient_body(p, scale, out);
}
DHN_CLONES void plane_gradient(const Plane<double>& p, double scale, double* out) {
  plane_gradient_body(p, scale, out);
}

// A call, contiguous and all of one type: double for double predictions, else float.
struct Problem {
  Tensor prediction, keypoints;
  std::optional<Tensor> mask, boxes;
  Gaussian<double> gaussian;

  Problem(const Tensor& prediction, const Tensor& keypoints, const std::optional<Tensor>& mask,
          const std::optional<Tensor>& boxes, const Gaussian<double>& gaussian)
      : prediction(as_type(prediction, compute_type(prediction))),
        keypoints(as_type(keypoints, type())),
        gaussian(gaussian) {
    if (mask) this->mask = as_type(*mask, type());
    if (boxes) this->boxes = as_type(*boxes, type());
  }

  ScalarType type() const { return prediction.scalar_type(); }
  int64_t images() const { return prediction.size(0); }
  int64_t joints() const { return prediction.size(1); }
  int64_t area() const { return prediction.size(2) * prediction.size(3); }
  double count() const { return double(joints()) * double(area()); }
  // How many planes of the mask an image has: 1 or J.
  int64_t mask_joints() const { return mask && mask->dim() == 4 ? mask->size(1) : 1; }
};

// The boxes of the people whose joint j in image b is unknown.
template <typename scalar_t>
void assign_unknown(const Problem& p, int64_t b, int64_t j, std::vector<PixelBox>& unknown) {
  unknown.clear();
  if (!p.boxes) return;
  const int64_t J = p.joints(), P = p.keypoints.size(1);
  const scalar_t stride = static_cast<scalar_t>(p.gaussian.stride);
  const scalar_t* joint = p.keypoints.const_data_ptr<scalar_t>() + (b * P * J + j) * 3;
  const scalar_t* box = p.boxes->const_data_ptr<scalar_t>() + b * P * 4;
  for (int64_t person = 0; person < P; ++person, joint += J * 3, box += 4) {
    if (!(joint[2] < scalar_t(0))) continue;
    PixelBox pixels;
    cover(box[0], box[2], stride, static_cast<int>(p.prediction.size(3)), pixels.left,
          pixels.right);
    cover(box[1], box[3], stride, static_cast<int>(p.prediction.size(2)), pixels.top,
          pixels.bottom);
    if (pixels.left < pixels.right && pixels.top < pixels.bottom) unknown.push_back(pixels);
  }
}

// Calls body(index, plane) for every plane b * J + j, in parallel.
template <typename scalar_t, typename Body>
void each_plane(const Problem& p, const Body& body) {
  const int height = static_cast<int>(p.prediction.size(2));
  const int width = static_cast<int>(p.prediction.size(3));
  const int64_t J = p.joints(), P = p.keypoints.size(1);
  const scalar_t* prediction = p.prediction.const_data_ptr<scalar_t>();
  const scalar_t* points = p.keypoints.const_data_ptr<scalar_t>();
  const scalar_t* mask = p.mask ? p.mask->const_data_ptr<scalar_t>() : nullptr;
  const std::vector<scalar_t> zeros(width, scalar_t(0)), ones(width, scalar_t(1));
  torch::stable::parallel_for(0, p.images() * J, 1, [&](int64_t begin, int64_t end) {
    Shapes<scalar_t> shapes(gaussian_of<scalar_t>(p.gaussian), height, width);
    std::vector<scalar_t> drawn(width), weights(width);
    std::vector<PixelBox> unknown;
    const int64_t M = p.mask_joints();
    for (int64_t index = begin; index < end; ++index) {
      const int64_t b = index / J, j = index % J;
      shapes.assign(points + (b * P * J + j) * 3, P, J * 3);
      assign_unknown<scalar_t>(p, b, j, unknown);
      body(index, Plane<scalar_t>{&shapes, &unknown, prediction + index * p.area(),
                                  mask ? mask + (b * M + j % M) * p.area() : nullptr, height, width,
                                  drawn.data(), weights.data(), zeros.data(), ones.data()});
    }
  });
}

template <typename scalar_t>
Tensor forward(const Problem& p) {
  std::vector<double> errors(p.images() * p.joints());
  each_plane<scalar_t>(
      p, [&](int64_t index, const Plane<scalar_t>& plane) { errors[index] = plane_error(plane); });
  Tensor loss = torch::stable::new_empty(p.prediction, {p.images()});
  scalar_t* out = loss.mutable_data_ptr<scalar_t>();
  for (int64_t b = 0; b < p.images(); ++b) {
    double sum = 0;
    for (int64_t j = 0; j < p.joints(); ++j) sum += errors[b * p.joints() + j];
    out[b] = static_cast<scalar_t>(sum / p.count());
  }
  return loss;
}

template <typename scalar_t>
Tensor backward(const Problem& p, const Tensor& grad) {
  Tensor result = torch::stable::empty_like(p.prediction);
  scalar_t* out = result.mutable_data_ptr<scalar_t>();
  const scalar_t* scales = grad.const_data_ptr<scalar_t>();
  each_plane<scalar_t>(p, [&](int64_t index, const Plane<scalar_t>& plane) {
    const double scale = 2 * double(scales[index / p.joints()]) / p.count();
    plane_gradient(plane, static_cast<scalar_t>(scale), out + index * p.area());
  });
  return result;
}

Tensor heatmap_mse(Tensor prediction, Tensor keypoints, std::optional<Tensor> mask, double stride,
                   double sigma, double tau, std::string target, std::optional<Tensor> boxes) {
  check_heatmap_mse(prediction, keypoints, mask, boxes);
  const Problem p(prediction, keypoints, mask, boxes, checked_gaussian(stride, sigma, tau, target));
  return p.type() == ScalarType::Double ? forward<double>(p) : forward<float>(p);
}

Tensor heatmap_mse_backward(Tensor grad, Tensor prediction, Tensor keypoints,
                            std::optional<Tensor> mask, double stride, double sigma, double tau,
                            std::string target, std::optional<Tensor> boxes) {
  check_heatmap_mse_backward(grad, prediction, keypoints, mask, boxes);
  const Problem p(prediction, keypoints, mask, boxes, checked_gaussian(stride, sigma, tau, target));
  const Tensor scales = as_type(grad, p.type());
  const Tensor result =
      p.type() == ScalarType::Double ? backward<double>(p, scales) : backward<float>(p, scales);
  return as_type(result, prediction.scalar_type());
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) {
  m.impl("heatmap_mse", TORCH_BOX(&heatmap_mse));
  m.impl("heatmap_mse_backward", TORCH_BOX(&heatmap_mse_backward));
}

}  // namespace
}  // namespace dhn
