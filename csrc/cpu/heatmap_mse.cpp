#include <torch/csrc/stable/library.h>

#include <optional>

#include "checks.h"
#include "discs.h"

namespace dhn {
namespace {

// sum of mask * (prediction - target)^2 over a row.
// Sixteen running sums, because the compiler may not reorder a single one.
template <typename scalar_t>
DHN_INLINE double squared_error(const scalar_t* prediction, const scalar_t* target,
                                const scalar_t* mask, int width) {
  constexpr int kLanes = 16;
  scalar_t sums[kLanes] = {};
  int u = 0;
  for (; u + kLanes <= width; u += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const scalar_t error = prediction[u + lane] - target[u + lane];
      sums[lane] += mask[u + lane] * (error * error);
    }
  }
  double total = 0;
  for (; u < width; ++u) {
    const scalar_t error = prediction[u] - target[u];
    total += mask[u] * (error * error);
  }
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
  return total;
}

template <typename scalar_t>
DHN_INLINE void error_gradient(const scalar_t* prediction, const scalar_t* target,
                               const scalar_t* mask, int width, scalar_t scale, scalar_t* out) {
  for (int u = 0; u < width; ++u) out[u] = scale * mask[u] * (prediction[u] - target[u]);
}

// One plane and the rows it works with: `target` is one painted row, `zeros` and `ones` stand in
// for a row that no disc touches and for an absent mask (they stay in the cache, so cost nothing).
template <typename scalar_t>
struct Plane {
  const Discs<scalar_t>* discs;
  const scalar_t* prediction;  // [height, width]
  const scalar_t* mask;        // [height, width] or null
  int height, width;
  scalar_t* target;
  const scalar_t* zeros;
  const scalar_t* ones;
};

template <typename scalar_t, typename Row>
DHN_INLINE void each_row(const Plane<scalar_t>& p, const Row& row) {
  for (int v = 0; v < p.height; ++v) {
    bool painted = false;
    for (const Disc<scalar_t>& disc : p.discs->all()) {
      if (v < disc.top || v >= disc.bottom) continue;
      if (!painted) std::fill(p.target, p.target + p.width, scalar_t(0));
      painted = true;
      p.discs->paint_row(disc, v, p.target);
    }
    const size_t at = size_t(v) * p.width;
    row(at, painted ? p.target : p.zeros, p.mask ? p.mask + at : p.ones);
  }
}

template <typename scalar_t>
DHN_INLINE double plane_error_body(const Plane<scalar_t>& p) {
  double total = 0;
  each_row(p, [&](size_t at, const scalar_t* target, const scalar_t* mask)
                  __attribute__((always_inline)) {
                    total += squared_error(p.prediction + at, target, mask, p.width);
                  });
  return total;
}

template <typename scalar_t>
DHN_INLINE void plane_gradient_body(const Plane<scalar_t>& p, scalar_t scale, scalar_t* out) {
  each_row(p, [&](size_t at, const scalar_t* target, const scalar_t* mask)
                  __attribute__((always_inline)) {
                    error_gradient(p.prediction + at, target, mask, p.width, scale, out + at);
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

struct Problem {
  Tensor prediction, keypoints;
  std::optional<Tensor> mask;
  double stride, sigma, tau;
  bool square;

  int64_t images() const { return prediction.size(0); }
  int64_t joints() const { return prediction.size(1); }
  int64_t area() const { return prediction.size(2) * prediction.size(3); }
  double count() const { return double(joints()) * double(area()); }
};

// Checked, contiguous, and all of one type: double for double predictions, else float.
Problem make_problem(const Tensor& prediction, const Tensor& keypoints,
                     const std::optional<Tensor>& mask, double stride, double sigma, double tau,
                     bool square) {
  check_floating(prediction, "prediction");
  check_dim(prediction, 4, "prediction [B, J, h, w]");
  check_target(keypoints, stride, sigma, tau, square);
  STD_TORCH_CHECK(
      keypoints.size(0) == prediction.size(0) && keypoints.size(2) == prediction.size(1),
      "keypoints [B, P, J, 3] do not fit prediction [B, J, h, w]");
  STD_TORCH_CHECK(
      !mask || (mask->dim() == 3 && mask->size(0) == prediction.size(0) &&
                mask->size(1) == prediction.size(2) && mask->size(2) == prediction.size(3)),
      "mask [B, h, w] does not fit prediction [B, J, h, w]");
  const ScalarType type =
      prediction.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  std::optional<Tensor> weights;
  if (mask) weights = as_type(*mask, type);
  return {as_type(prediction, type), as_type(keypoints, type), weights, stride, sigma, tau, square};
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
    Discs<scalar_t> discs({scalar_t(p.stride), scalar_t(p.sigma), scalar_t(p.tau), p.square},
                          height, width);
    std::vector<scalar_t> target(width);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t b = index / J, j = index % J;
      discs.assign(points + (b * P * J + j) * 3, P, J * 3);
      body(index, Plane<scalar_t>{&discs, prediction + index * p.area(),
                                  mask ? mask + b * p.area() : nullptr, height, width,
                                  target.data(), zeros.data(), ones.data()});
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
                   double sigma, double tau, bool square) {
  const Problem p = make_problem(prediction, keypoints, mask, stride, sigma, tau, square);
  return p.prediction.scalar_type() == ScalarType::Double ? forward<double>(p) : forward<float>(p);
}

Tensor heatmap_mse_backward(Tensor grad, Tensor prediction, Tensor keypoints,
                            std::optional<Tensor> mask, double stride, double sigma, double tau,
                            bool square) {
  const Problem p = make_problem(prediction, keypoints, mask, stride, sigma, tau, square);
  STD_TORCH_CHECK(grad.dim() == 1 && grad.size(0) == p.images(), "grad must be [B]");
  const ScalarType type = p.prediction.scalar_type();
  const Tensor scales = as_type(grad, type);
  const Tensor result =
      type == ScalarType::Double ? backward<double>(p, scales) : backward<float>(p, scales);
  return as_type(result, prediction.scalar_type());
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) {
  m.impl("heatmap_mse", TORCH_BOX(&heatmap_mse));
  m.impl("heatmap_mse_backward", TORCH_BOX(&heatmap_mse_backward));
}

}  // namespace
}  // namespace dhn
