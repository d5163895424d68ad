#include <tuple>

#include "cuda/launch.h"
#include "cuda/read_peaks.cuh"

namespace dhn::cuda {
namespace {

std::tuple<Tensor, Tensor> read_peaks(const Tensor& heatmaps_, const Tensor& tags_,
                                      const Tensor& indices_, std::int64_t height,
                                      std::int64_t width, bool subpixel) {
  check_read_peaks(heatmaps_, tags_, indices_, height, width);
  const ScalarType type = map_type(heatmaps_, tags_);
  const Tensor heatmaps = as_type(heatmaps_, type), tags = as_type(tags_, type);
  const Tensor indices = torch::stable::contiguous(indices_);
  const std::int64_t B = heatmaps.size(0), J = heatmaps.size(1);
  const std::int64_t K = indices.size(2), T = tags.size(2);
  const Launcher launch(heatmaps);
  Tensor xy = torch::stable::new_empty(heatmaps, {B, J, K, 2}, ScalarType::Float);
  Tensor values = torch::stable::new_empty(heatmaps, {B, J, K, T}, ScalarType::Float);
  DHN_DISPATCH_MAPS(type, "read_peaks", [&] {
    launch(read_peaks_kernel<scalar_t>, grid_of({ceil_div<std::int64_t>(B * J * K, kReadThreads)}),
           dim3(kReadThreads), heatmaps.const_data_ptr<scalar_t>(), tags.const_data_ptr<scalar_t>(),
           indices.const_data_ptr<std::int64_t>(), B * J * K, static_cast<int>(K),
           static_cast<int>(T), static_cast<int>(heatmaps.size(2)),
           static_cast<int>(heatmaps.size(3)), static_cast<int>(height), static_cast<int>(width),
           subpixel, xy.mutable_data_ptr<float>(), values.mutable_data_ptr<float>());
  });
  return {xy, values};
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("read_peaks", TORCH_BOX(&dhn::cuda::read_peaks)); }
