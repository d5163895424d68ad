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

std::vector<Tensor> render_heatmaps(const Tensor& keypoints_, std::vector<std::int64_t> heights,
                                    std::vector<std::int64_t> widths, std::vector<double> strides,
                                    std::vector<double> sigmas, std::vector<double> taus,
                                    bool square) {
  // The wrapper checks shapes; what kernels read out of bounds without is checked here.
  STD_TORCH_CHECK(keypoints_.dim() == 4 && keypoints_.size(3) == 3,
                  "keypoints: expected [B, P, J, 3]");
  const std::size_t n = heights.size();
  STD_TORCH_CHECK(
      widths.size() == n && strides.size() == n && sigmas.size() == n && taus.size() == n,
      "heights, widths, strides, sigmas, taus: expected equal lengths");
  const Tensor keypoints = torch::stable::contiguous(keypoints_);
  std::vector<Tensor> outs;
  std::vector<Gaussian<double>> shapes;
  for (std::size_t i = 0; i < n; ++i) {
    outs.push_back(torch::stable::new_empty(
        keypoints, {keypoints.size(0), keypoints.size(2), heights[i], widths[i]}));
    shapes.push_back({strides[i], sigmas[i], taus[i], square});
  }
  THO_DISPATCH_V2(keypoints.scalar_type(), "render_heatmaps",
                  AT_WRAP([&] { render<scalar_t>(keypoints, outs, shapes); }), AT_FLOATING_TYPES);
  return outs;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("render_heatmaps", TORCH_BOX(&dhn::cuda::render_heatmaps)); }
