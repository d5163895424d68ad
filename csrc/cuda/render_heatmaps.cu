#include <vector>

#include "launch.h"
#include "render_heatmaps.cuh"

namespace dhn::cuda {
namespace {

template <typename scalar_t>
void render(const Tensor& keypoints, std::vector<Tensor>& outs,
            const std::vector<Gaussian<double>>& shapes) {
  const Launcher launch(keypoints);
  const std::int64_t B = keypoints.size(0), P = keypoints.size(1), J = keypoints.size(2);
  for (std::size_t first = 0; first < outs.size(); first += kMaxMaps) {
    RenderMaps<scalar_t> all{};
    for (std::size_t i = first; i < outs.size() && all.count < kMaxMaps; ++i) {
      const int height = static_cast<int>(outs[i].size(2)),
                width = static_cast<int>(outs[i].size(3));
      const Gaussian<double>& g = shapes[i];
      all.maps[all.count++] = {outs[i].mutable_data_ptr<scalar_t>(),
                               height,
                               width,
                               ceil_div(width, kTileW),
                               all.tiles,
                               {scalar_t(g.stride), scalar_t(g.sigma), scalar_t(g.tau), g.square},
                               scalar_t(gaussian_rate(g))};
      all.tiles += ceil_div(width, kTileW) * ceil_div(height, kTileH);
    }
    launch(render_heatmaps_kernel<scalar_t>, grid_of(B * J * all.tiles), dim3(kRenderThreads),
           keypoints.const_data_ptr<scalar_t>(), static_cast<int>(P), static_cast<int>(J), all);
  }
}

std::vector<Tensor> render_heatmaps(const Tensor& keypoints, std::vector<std::int64_t> heights,
                                    std::vector<std::int64_t> widths, std::vector<double> strides,
                                    std::vector<double> sigmas, std::vector<double> taus,
                                    bool square) {
  check_dim(keypoints, 4, "keypoints [B, P, J, 3]");
  const std::size_t n = heights.size();
  STD_TORCH_CHECK(
      widths.size() == n && strides.size() == n && sigmas.size() == n && taus.size() == n,
      "heights, widths, strides, sigmas and taus must be of one length");
  const bool wide = keypoints.scalar_type() == ScalarType::Double;
  const Tensor points = as_type(keypoints, wide ? ScalarType::Double : ScalarType::Float);
  std::vector<Tensor> outs;
  std::vector<Gaussian<double>> shapes;
  for (std::size_t i = 0; i < n; ++i) {
    check_target(keypoints, strides[i], sigmas[i], taus[i], square);
    outs.push_back(
        torch::stable::new_empty(points, {points.size(0), points.size(2), heights[i], widths[i]}));
    shapes.push_back({strides[i], sigmas[i], taus[i], square});
  }
  wide ? render<double>(points, outs, shapes) : render<float>(points, outs, shapes);
  return outs;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("render_heatmaps", TORCH_BOX(&dhn::cuda::render_heatmaps)); }
