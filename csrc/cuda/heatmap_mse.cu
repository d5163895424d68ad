#include <optional>

#include "heatmap_mse.cuh"
#include "launch.h"

namespace dhn::cuda {
namespace {

// A call with its inputs checked; keypoints and mask contiguous and of the type to compute in.
struct Problem {
  Tensor prediction, keypoints;
  std::optional<Tensor> mask;
  Gaussian<double> gaussian;

  Problem(const Tensor& prediction_, const Tensor& keypoints_, const std::optional<Tensor>& mask_,
          const Gaussian<double>& gaussian)
      : prediction(torch::stable::contiguous(prediction_)),
        keypoints(as_type(keypoints_, compute_type())),
        gaussian(gaussian) {
    check_floating(prediction, "prediction");
    check_dim(prediction, 4, "prediction [B, J, h, w]");
    check_target(keypoints, gaussian.stride, gaussian.sigma, gaussian.tau, gaussian.square);
    STD_TORCH_CHECK(
        keypoints.size(0) == prediction.size(0) && keypoints.size(2) == prediction.size(1),
        "keypoints [B, P, J, 3] do not fit prediction [B, J, h, w]");
    STD_TORCH_CHECK(
        !mask_ || (mask_->dim() == 3 && mask_->size(0) == prediction.size(0) &&
                   mask_->size(1) == prediction.size(2) && mask_->size(2) == prediction.size(3)),
        "mask [B, h, w] does not fit prediction [B, J, h, w]");
    if (mask_) mask = as_type(*mask_, compute_type());
  }

  ScalarType compute_type() const {
    return prediction.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  }
  std::int64_t images() const { return prediction.size(0); }
  double count() const {
    return double(prediction.size(1)) * double(prediction.size(2)) * double(prediction.size(3));
  }
  template <typename scalar_t>
  Target<scalar_t> target() const {
    const int height = static_cast<int>(prediction.size(2));
    const int width = static_cast<int>(prediction.size(3));
    const int tiles_x = ceil_div(width, kTileW);
    return {keypoints.const_data_ptr<scalar_t>(),
            mask ? mask->const_data_ptr<scalar_t>() : nullptr,
            static_cast<int>(keypoints.size(1)),
            static_cast<int>(keypoints.size(2)),
            height,
            width,
            tiles_x,
            tiles_x * ceil_div(height, kTileH),
            {scalar_t(gaussian.stride), scalar_t(gaussian.sigma), scalar_t(gaussian.tau),
             gaussian.square},
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
                   double stride, double sigma, double tau, bool square) {
  const Problem p(prediction, keypoints, mask, {stride, sigma, tau, square});
  const Launcher launch(p.prediction);
  Tensor loss = torch::stable::new_empty(p.prediction, {p.images()}, p.compute_type());
  dispatch(p, [&](auto compute, auto map) {
    using compute_t = decltype(compute);
    using map_t = decltype(map);
    const auto target = p.target<compute_t>();
    const int parts = target.J * target.tiles;
    Tensor partial =
        torch::stable::new_empty(p.prediction, {p.images(), parts}, ScalarType::Double);
    launch(heatmap_mse_kernel<compute_t, map_t>, grid_of(p.images() * parts), dim3(kRenderThreads),
           target, p.prediction.template const_data_ptr<map_t>(),
           partial.mutable_data_ptr<double>());
    launch(mean_error_kernel<compute_t>, grid_of(p.images()), dim3(32),
           partial.const_data_ptr<double>(), parts, p.count(), loss.mutable_data_ptr<compute_t>());
  });
  return loss;
}

Tensor heatmap_mse_backward(const Tensor& grad, const Tensor& prediction, const Tensor& keypoints,
                            std::optional<Tensor> mask, double stride, double sigma, double tau,
                            bool square) {
  const Problem p(prediction, keypoints, mask, {stride, sigma, tau, square});
  STD_TORCH_CHECK(grad.dim() == 1 && grad.size(0) == p.images(), "grad must be [B]");
  const Tensor scales = as_type(grad, p.compute_type());
  const Launcher launch(p.prediction);
  Tensor result = torch::stable::empty_like(p.prediction);
  dispatch(p, [&](auto compute, auto map) {
    using compute_t = decltype(compute);
    using map_t = decltype(map);
    const auto target = p.target<compute_t>();
    launch(heatmap_mse_backward_kernel<compute_t, map_t>,
           grid_of(p.images() * target.J * target.tiles), dim3(kRenderThreads), target,
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
