#include <string>
#include <vector>

#include "cuda/launch.h"
#include "cuda/render_heatmaps.cuh"

namespace dhn::cuda {
namespace {

template <typename scalar_t>
void render(const Tensor& keypoints, std::vector<Tensor>& outs,
            const std::vector<Gaussian<double>>& gaussians) {
  const Launcher launch(keypoints);
  const std::int64_t B = keypoints.size(0), P = keypoints.size(1), J = keypoints.size(2);
  for (std::size_t first = 0; first < outs.size(); first += kMaxMaps) {
    RenderMaps<scalar_t> all{};
    for (std::size_t i = first; i < outs.size() && all.count < kMaxMaps; ++i) {
      const int height = static_cast<int>(outs[i].size(2));
      const int width = static_cast<int>(outs[i].size(3));
      const int tiles_x = ceil_div(width, kTileW);
      all.maps[all.count++] = {outs[i].mutable_data_ptr<scalar_t>(),
                               height,
                               width,
                               tiles_x,
                               all.tiles,
                               gaussian_of<scalar_t>(gaussians[i]),
                               scalar_t(gaussian_rate(gaussians[i]))};
      all.tiles += tiles_x * ceil_div(height, kTileH);
    }
    launch(render_heatmaps_kernel<scalar_t>, grid_of({B, J, all.tiles}), dim3(kRenderThreads),
           keypoints.const_data_ptr<scalar_t>(), static_cast<int>(P), static_cast<int>(J), all);
  }
}

std::vector<Tensor> render_heatmaps(const Tensor& keypoints, std::vector<std::int64_t> heights,
                                    std::vector<std::int64_t> widths, std::vector<double> strides,
                                    std::vector<double> sigmas, std::vector<double> taus,
                                    std::string target) {
  const auto gaussians =
      check_render_heatmaps(keypoints, heights, widths, strides, sigmas, taus, target);
  const ScalarType type = compute_type(keypoints);
  const Tensor points = as_type(keypoints, type);
  std::vector<Tensor> outs;
  for (std::size_t i = 0; i < gaussians.size(); ++i) {
    outs.push_back(
        torch::stable::new_empty(points, {points.size(0), points.size(2), heights[i], widths[i]}));
  }
  type == ScalarType::Double ? render<double>(points, outs, gaussians)
                             : render<float>(points, outs, gaussians);
  return outs;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("render_heatmaps", TORCH_BOX(&dhn::cuda::render_heatmaps)); }
