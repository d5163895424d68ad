#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <vector>

#include "checks.h"
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

// One plane and the rows it works with: `drawn` is a row of the target, `zeros` and `ones` stand in
// for a row that no shape touches and for an absent mask (they stay in the cache and cost nothing).
template <typename scalar_t>
struct Plane {
  const Shapes<scalar_t>* shapes;
  const scalar_t* prediction;  // [height, width]
  const scalar_t* mask;        // [height, width] or null
  int height, width;
  scalar_t* drawn;
  const scalar_t* zeros;
  const scalar_t* ones;
};

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
    row(at, painted ? p.drawn : p.zeros, p.mask ? p.mask + at : p.ones);
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
  std::optional<Tensor> mask;
  Gaussian<double> gaussian;

  Problem(const Tensor& prediction, const Tensor& keypoints, const std::optional<Tensor>& mask,
          const Gaussian<double>& gaussian)
      : prediction(as_type(prediction, compute_type(prediction))),
        keypoints(as_type(keypoints, type())),
        gaussian(gaussian) {
    if (mask) this->mask = as_type(*mask, type());
  }

  ScalarType type() const { return prediction.scalar_type(); }
  int64_t images() const { return prediction.size(0); }
  int64_t joints() const { return prediction.size(1); }
  int64_t area() const { return prediction.size(2) * prediction.size(3); }
  double count() const { return double(joints()) * double(area()); }
};

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
    std::vector<scalar_t> drawn(width);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t b = index / J, j = index % J;
      shapes.assign(points + (b * P * J + j) * 3, P, J * 3);
      body(index, Plane<scalar_t>{&shapes, prediction + index * p.area(),
                                  mask ? mask + b * p.area() : nullptr, height, width, drawn.data(),
                                  zeros.data(), ones.data()});
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
                   double sigma, double tau, std::string target) {
  check_heatmap_mse(prediction, keypoints, mask);
  const Problem p(prediction, keypoints, mask, checked_gaussian(stride, sigma, tau, target));
  return p.type() == ScalarType::Double ? forward<double>(p) : forward<float>(p);
}

Tensor heatmap_mse_backward(Tensor grad, Tensor prediction, Tensor keypoints,
                            std::optional<Tensor> mask, double stride, double sigma, double tau,
                            std::string target) {
  check_heatmap_mse_backward(grad, prediction, keypoints, mask);
  const Problem p(prediction, keypoints, mask, checked_gaussian(stride, sigma, tau, target));
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
