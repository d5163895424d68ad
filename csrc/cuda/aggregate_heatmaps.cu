#include <vector>

#include "cuda/aggregate_heatmaps.cuh"
#include "cuda/launch.h"

namespace dhn::cuda {
namespace {

std::vector<Tensor> contiguous(const std::vector<Tensor>& maps) {
  std::vector<Tensor> result;
  for (const Tensor& map : maps) result.push_back(as_type(map, map_type(map)));
  return result;
}

template <typename map_t>
Pass<map_t> pass_of(const std::vector<Tensor>& quarter, const std::vector<Tensor>& half) {
  Pass<map_t> pass{};
  for (std::size_t s = 0; s < half.size(); ++s) {
    pass.quarter[s] = quarter[s].const_data_ptr<map_t>();
    pass.half[s] = half[s].const_data_ptr<map_t>();
  }
  return pass;
}

Tensor aggregate_heatmaps(std::vector<Tensor> quarter, std::vector<Tensor> half,
                          std::vector<Tensor> quarter_flipped, std::vector<Tensor> half_flipped,
                          std::vector<std::int64_t> flip) {
  check_aggregate_heatmaps(quarter, half, quarter_flipped, half_flipped, flip);
  const std::size_t stages = half.size();
  const std::int64_t B = half[0].size(0), J = half[0].size(1);
  const std::int64_t h = half[0].size(2), w = half[0].size(3);
  STD_TORCH_CHECK(stages <= kMaxStages && J <= kMaxFlipJoints, "expected up to ", kMaxStages,
                  " stages and ", kMaxFlipJoints, " joints on CUDA");
  STD_TORCH_CHECK(h == 2 * quarter[0].size(2) && w == 2 * quarter[0].size(3),
                  "half maps must be twice as high and wide as quarter maps on CUDA");
  const bool has_flipped = !half_flipped.empty();
  Flip opposite{};
  for (std::size_t j = 0; has_flipped && j < flip.size(); ++j) {
    opposite.joint[j] = static_cast<unsigned char>(flip[j]);
  }
  const std::vector<Tensor> q = contiguous(quarter), f = contiguous(half);
  const std::vector<Tensor> q_flipped = contiguous(quarter_flipped);
  const std::vector<Tensor> f_flipped = contiguous(half_flipped);
  const int tiles_x = ceil_div(static_cast<int>(w), kAggregateTileW);
  const int tiles = tiles_x * ceil_div(static_cast<int>(h), kAggregateTileH);
  const Launcher launch(f[0]);
  Tensor out = torch::stable::new_empty(f[0], {B, J, h, w}, ScalarType::Float);
  DHN_DISPATCH_MAPS(f[0].scalar_type(), "aggregate_heatmaps", [&] {
    launch(aggregate_heatmaps_kernel<scalar_t>, grid_of({B, J, tiles}), dim3(kAggregateThreads),
           pass_of<scalar_t>(q, f), pass_of<scalar_t>(q_flipped, f_flipped), opposite, has_flipped,
           static_cast<int>(stages), static_cast<int>(J), static_cast<int>(h), static_cast<int>(w),
           tiles_x, tiles, out.mutable_data_ptr<float>());
  });
  return out;
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("aggregate_heatmaps", TORCH_BOX(&dhn::cuda::aggregate_heatmaps)); }
