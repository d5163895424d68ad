#include <algorithm>
#include <tuple>

#include "cuda/launch.h"
#include "cuda/topk_peaks.cuh"

namespace dhn::cuda {
namespace {

// Enough blocks to fill any device; more strips per map than this would only lengthen the merge.
constexpr int kPeakBlocks = 2048, kMaxStrips = 64;

std::tuple<Tensor, Tensor> topk_peaks(const Tensor& heatmaps_, std::int64_t k, std::int64_t kernel,
                                      std::int64_t height, std::int64_t width, double threshold) {
  check_topk_peaks(heatmaps_, k, kernel, height, width, threshold);
  STD_TORCH_CHECK(k <= kMaxK, "k: expected up to ", kMaxK, " on CUDA, got ", k);
  STD_TORCH_CHECK(kernel / 2 <= kMaxPeakRadius, "kernel: expected up to ", 2 * kMaxPeakRadius + 1,
                  " on CUDA, got ", kernel);
  const Tensor heatmaps = as_type(heatmaps_, map_type(heatmaps_));
  const std::int64_t B = heatmaps.size(0), J = heatmaps.size(1), maps = B * J;
  const int h = static_cast<int>(heatmaps.size(2)), w = static_cast<int>(heatmaps.size(3));
  const int H = static_cast<int>(height), W = static_cast<int>(width), K = static_cast<int>(k);
  const int tiles = ceil_div(W, kPeakTileW) * ceil_div(H, kPeakTileH);
  const std::int64_t enough = ceil_div<std::int64_t>(kPeakBlocks, std::max<std::int64_t>(maps, 1));
  const int strips = static_cast<int>(std::min<std::int64_t>({tiles, kMaxStrips, enough}));

  const Launcher launch(heatmaps);
  Tensor strip_best = torch::stable::new_empty(heatmaps, {maps, strips, k}, ScalarType::Long);
  Tensor scores = torch::stable::new_empty(heatmaps, {B, J, k}, ScalarType::Float);
  Tensor indices = torch::stable::new_empty(heatmaps, {B, J, k}, ScalarType::Long);
  Key* const keys = static_cast<Key*>(strip_best.mutable_data_ptr());
  DHN_DISPATCH_MAPS(heatmaps.scalar_type(), "topk_peaks", [&] {
    launch(find_peaks_kernel<scalar_t>, grid_of({maps, strips}), dim3(kBestThreads),
           heatmaps.const_data_ptr<scalar_t>(), h, w, H, W, strips, K, static_cast<int>(kernel / 2),
           static_cast<float>(threshold), keys);
  });
  launch(merge_peaks_kernel, grid_of({maps}), dim3(kBestThreads), keys, strips, K,
         scores.mutable_data_ptr<float>(), indices.mutable_data_ptr<std::int64_t>());
  return {scores, indices};
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("topk_peaks", TORCH_BOX(&dhn::cuda::topk_peaks)); }
