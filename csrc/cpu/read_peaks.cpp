#include "cpu/read_peaks.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"

namespace dhn {
namespace {

std::tuple<Tensor, Tensor> read_peaks(Tensor heatmaps, Tensor tags, Tensor indices, int64_t height,
                                      int64_t width, bool subpixel) {
  check_read_peaks(heatmaps, tags, indices, height, width);
  const Tensor maps = as_float32(heatmaps), tag_maps = as_float32(tags);
  const Tensor where = as_type(indices, ScalarType::Long);
  const int64_t B = maps.size(0), J = maps.size(1), T = tags.size(2), K = indices.size(2);
  Tensor points = torch::stable::new_empty(maps, {B, J, K, 2});
  Tensor values = torch::stable::new_empty(maps, {B, J, K, T});
  const float* pixels = maps.const_data_ptr<float>();
  const float* tag_pixels = tag_maps.const_data_ptr<float>();
  const int64_t* index = where.const_data_ptr<int64_t>();
  float* xy = points.mutable_data_ptr<float>();
  float* tag = values.mutable_data_ptr<float>();

  const Grid grid(maps.size(2), maps.size(3), height, width);
  for (int64_t i = 0; i < B * J * K; ++i) {
    STD_TORCH_CHECK(index[i] >= 0 && index[i] < height * width, "index ", index[i],
                    " lies outside ", height, " x ", width);
    const int64_t plane = i / K;
    read_peak(grid, pixels + plane * grid.area(), tag_pixels + plane * T * grid.area(), T, index[i],
              subpixel, xy + 2 * i, tag + i * T);
  }
  return {points, values};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("read_peaks", TORCH_BOX(&read_peaks)); }

}  // namespace
}  // namespace dhn
