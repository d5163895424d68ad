#include <optional>
#include <string>

#include "cuda/heatmap_mse.cuh"
#include "cuda/launch.h"

namespace dhn::cuda {
namespace {

// A call; keypoints, mask and boxes contiguous and of the type to compute in.
struct Problem {
  Tensor prediction, keypoints;
  std::optional<Tensor> mask, boxes;
  Gaussian<double> gaussian;

  Problem(const Tensor& prediction, const Tensor& keypoints, const std::optional<Tensor>& mask,
          const std::optional<Tensor>& boxes, const Gaussian<double>& gaussian)
      : prediction(torch::stable::contiguous(prediction)),
        keypoints(as_type(keypoints, type())),
        gaussian(gaussian) {
    if (mask) this->mask = as_type(*mask, type());
    if (boxes) this->boxes = as_type(*boxes, type());
  }

  ScalarType type() const { return compute_type(prediction); }
  std::int64_t images() const { return prediction.size(0); }
  double count() const {
    return double(prediction.size(1)) * double(prediction.size(2)) * double(prediction.size(3));
  }
  template <typename scalar_t>
  MseInputs<scalar_t> inputs() const {
    const int height = static_cast<int>(prediction.size(2));
    const int width = static_cast<int>(prediction.size(3));
    const int tiles_x = ceil_div(width, kTileW);
    return {keypoints.const_data_ptr<scalar_t>(),
            mask ? mask->const_data_ptr<scalar_t>() : nullptr,
            boxes ? boxes->const_data_ptr<scalar_t>() : nullptr,
            mask && mask->dim() == 4 ? static_cast<int>(mask->size(1)) : 1,
            static_cast<int>(keypoints.size(1)),
            static_cast<int>(keypoints.size(2)),
            height,
            width,
            tiles_x,
            tiles_x * ceil_div(height, kTileH),
            gaussian_of<scalar_t>(gaussian),
            scalar_t(gaussian_rate(gaussian))};
  }
};

// Runs body(scalar_t{}, map_t{}) with the type to compute in and the type of the prediction.
template <typename Body>
void dispatch(const Problem& p, const Body& body) {
  if (p.prediction.scalar_type() == ScalarType::Double) return body(double{}, double{});
  DHN_DISPATCH_MAPS(p.prediction.scalar_type(), "heatmap_mse", [&] { body(float{}, scalar_t{}); });
}

Tensor heatmap_mse(const Tensor& prediction, const Tensor& keypoints, std::optional<Tensor> mask,
                   double stride, double sigma, double tau, std::string target,
                   std::optional<Tensor> boxes) {
  check_heatmap_mse(prediction, keypoints, mask, boxes);
  const Problem p(prediction, keypoints, mask, boxes, checked_gaussian(stride, sigma, tau, target));
  const Launcher launch(p.prediction);
  Tensor loss = torch::stable::new_empty(p.prediction, {p.images()}, p.type());
  dispatch(p, [&](auto compute, auto map) {
    using compute_t = decltype(compute);
    using map_t = decltype(map);
    const auto inputs = p.inputs<compute_t>();
    const dim3 grid = grid_of({p.images(), inputs.J, inputs.tiles});
    const int parts = inputs.J * inputs.tiles;
    Tensor partial =
        torch::stable::new_empty(p.prediction, {p.images(), parts}, ScalarType::Double);
    launch(heatmap_mse_kernel<compute_t, map_t>, grid, dim3(kRenderThreads), inputs,
           p.prediction.template const_data_ptr<map_t>(), partial.mutable_data_ptr<double>());
    launch(mean_error_kernel<compute_t>, grid_of({p.images()}), dim3(32),
           partial.const_data_ptr<double>(), parts, p.count(), loss.mutable_data_ptr<compute_t>());
  });
  return loss;
}

Tensor heatmap_mse_backward(const Tensor& grad, const Tensor& prediction, const Tensor& keypoints,
                            std::optional<Tensor> mask, double stride, double sigma, double tau,
                            std::string target, std::optional<Tensor> boxes) {
  check_heatmap_mse_backward(grad, prediction, keypoints, mask, boxes);
  const Problem p(prediction, keypoints, mask, boxes, checked_gaussian(stride, sigma, tau, target));
  const Tensor scales = as_type(grad, p.type());
  const Launcher launch(p.prediction);
  Tensor result = torch::stable::empty_like(p.prediction);
  dispatch(p, [&](auto compute, auto map) {
    using compute_t = decltype(compute);
    using map_t = decltype(map);
    const auto inputs = p.inputs<compute_t>();
    launch(heatmap_mse_backward_kernel<compute_t, map_t>,
           grid_of({p.images(), inputs.J, inputs.tiles}), dim3(kRenderThreads), inputs,
           p.prediction.template const_data_ptr<map_t>(), scales.const_data_ptr<compute_t>(),
           p.count(), result.mutable_data_ptr<map_t>());
  });
  return result;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) {
  m.impl("heatmap_mse", TORCH_BOX(&dhn::cuda::heatmap_mse));
  m.impl("heatmap_mse_backward", TORCH_BOX(&dhn::cuda::heatmap_mse_backward));
}
