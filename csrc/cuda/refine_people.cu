#include "cuda/launch.h"
#include "cuda/refine_people.cuh"

namespace dhn::cuda {
namespace {

Tensor refine_people(const Tensor& heatmaps_, const Tensor& tags_, const Tensor& people_,
                     const Tensor& counts_, std::int64_t height, std::int64_t width,
                     bool subpixel) {
  check_refine_people(heatmaps_, tags_, people_, counts_, height, width);
  STD_TORCH_CHECK(tags_.size(2) <= kRefineTagDims, "refine_people on CUDA takes up to ",
                  kRefineTagDims, " tag dimensions");
  const ScalarType type = map_type(heatmaps_, tags_);
  const Tensor heatmaps = as_type(heatmaps_, type), tags = as_type(tags_, type);
  const Tensor people = as_float32(people_), counts = torch::stable::contiguous(counts_);
  const std::int64_t B = heatmaps.size(0), J = heatmaps.size(1);
  const std::int64_t M = people.size(1), T = tags.size(2);
  const int H = static_cast<int>(height), W = static_cast<int>(width);
  const int tiles_x = ceil_div(W, kRefineTile), tiles = tiles_x * ceil_div(H, kRefineTile);
  const RefineSizes sizes{static_cast<int>(M),
                          static_cast<int>(J),
                          static_cast<int>(T),
                          static_cast<int>(heatmaps.size(2)),
                          static_cast<int>(heatmaps.size(3)),
                          H,
                          W,
                          tiles_x,
                          tiles};
  const std::int64_t warps = B * J * tiles;

  const Launcher launch(heatmaps);
  Tensor bounds = torch::stable::new_empty(heatmaps, {B * J, 1 + 2 * T, tiles}, ScalarType::Float);
  Tensor keypoints = torch::stable::new_zeros(heatmaps, {B, M, J, 3}, ScalarType::Float);
  DHN_DISPATCH_MAPS(type, "refine_people", [&] {
    const scalar_t* const scores = heatmaps.const_data_ptr<scalar_t>();
    const scalar_t* const tag_maps = tags.const_data_ptr<scalar_t>();
    launch(tile_bounds_kernel<scalar_t>,
           grid_of({ceil_div<std::int64_t>(warps, kRefineThreads / 32)}), dim3(kRefineThreads),
           scores, tag_maps, people.const_data_ptr<float>(), counts.const_data_ptr<std::int64_t>(),
           sizes, warps, bounds.mutable_data_ptr<float>());
    launch(refine_people_kernel<scalar_t>, grid_of({B, J, kRefineSlots}), dim3(kRefineThreads),
           scores, tag_maps, people.const_data_ptr<float>(), counts.const_data_ptr<std::int64_t>(),
           sizes, bounds.const_data_ptr<float>(), subpixel, keypoints.mutable_data_ptr<float>());
  });
  return keypoints;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("refine_people", TORCH_BOX(&dhn::cuda::refine_people)); }
