#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/shapes.h"

namespace dhn {
namespace {

template <typename scalar_t>
struct Map {
  Gaussian<scalar_t> gaussian;
  int height, width;
  scalar_t* pixels;  // [B, J, height, width]
};

// Planes are dealt out by (b, j), all maps of a plane together, so that every thread gets large
// maps and small ones.
template <typename scalar_t>
void render(const Tensor& keypoints, const std::vector<Map<scalar_t>>& maps) {
  const int64_t B = keypoints.size(0), P = keypoints.size(1), J = keypoints.size(2);
  const scalar_t* points = keypoints.const_data_ptr<scalar_t>();
  torch::stable::parallel_for(0, B * J, 1, [&](int64_t begin, int64_t end) {
    for (const Map<scalar_t>& map : maps) {
      Shapes<scalar_t> shapes(map.gaussian, map.height, map.width);
      const size_t size = size_t(map.height) * map.width;
      for (int64_t plane = begin; plane < end; ++plane) {
        scalar_t* pixels = map.pixels + plane * size;
        std::fill_n(pixels, size, scalar_t(0));
        shapes.assign(points + (plane / J * P * J + plane % J) * 3, P, J * 3);
        for (const Shape<scalar_t>& shape : shapes.all()) {
          for (int v = shape.top; v < shape.bottom; ++v) {
            shapes.paint_row(shape, v, pixels + size_t(v) * map.width);
          }
        }
      }
    }
  });
}

template <typename scalar_t>
std::vector<Tensor> render_all(const Tensor& keypoints, const std::vector<int64_t>& heights,
                               const std::vector<int64_t>& widths,
                               const std::vector<Gaussian<double>>& gaussians) {
  std::vector<Tensor> results;
  std::vector<Map<scalar_t>> maps;
  for (size_t i = 0; i < gaussians.size(); ++i) {
    results.push_back(torch::stable::new_empty(
        keypoints, {keypoints.size(0), keypoints.size(2), heights[i], widths[i]}));
    maps.push_back({gaussian_of<scalar_t>(gaussians[i]), static_cast<int>(heights[i]),
                    static_cast<int>(widths[i]), results.back().mutable_data_ptr<scalar_t>()});
  }
  render<scalar_t>(keypoints, maps);
  return results;
}

std::vector<Tensor> render_heatmaps(Tensor keypoints, std::vector<int64_t> heights,
                                    std::vector<int64_t> widths, std::vector<double> strides,
                                    std::vector<double> sigmas, std::vector<double> taus,
                                    std::string target) {
  const auto gaussians =
      check_render_heatmaps(keypoints, heights, widths, strides, sigmas, taus, target);
  const ScalarType type = compute_type(keypoints);
  const Tensor points = as_type(keypoints, type);
  return type == ScalarType::Double ? render_all<double>(points, heights, widths, gaussians)
                                    : render_all<float>(points, heights, widths, gaussians);
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("render_heatmaps", TORCH_BOX(&render_heatmaps)); }

}  // namespace
}  // namespace dhn
