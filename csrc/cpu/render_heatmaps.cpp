#include <torch/csrc/stable/library.h>

#include <cstring>

#include "checks.h"
#include "discs.h"

namespace dhn {
namespace {

template <typename scalar_t>
struct Map {
  Gaussian<scalar_t> gaussian;
  int height, width;
  scalar_t* pixels;  // [B, J, height, width]
};

// Planes are dealt out by (b, j), all maps of a plane together: every thread gets large and small.
template <typename scalar_t>
void render(const Tensor& keypoints, const std::vector<Map<scalar_t>>& maps) {
  const int64_t B = keypoints.size(0), P = keypoints.size(1), J = keypoints.size(2);
  const scalar_t* points = keypoints.const_data_ptr<scalar_t>();
  torch::stable::parallel_for(0, B * J, 1, [&](int64_t begin, int64_t end) {
    for (const Map<scalar_t>& map : maps) {
      Discs<scalar_t> discs(map.gaussian, map.height, map.width);
      const size_t size = size_t(map.height) * map.width;
      for (int64_t plane = begin; plane < end; ++plane) {
        scalar_t* pixels = map.pixels + plane * size;
        std::memset(pixels, 0, size * sizeof(scalar_t));
        discs.assign(points + (plane / J * P * J + plane % J) * 3, P, J * 3);
        for (const Disc<scalar_t>& disc : discs.all()) {
          for (int v = disc.top; v < disc.bottom; ++v) {
            discs.paint_row(disc, v, pixels + size_t(v) * map.width);
          }
        }
      }
    }
  });
}

template <typename scalar_t>
std::vector<Tensor> render_all(const Tensor& keypoints, const std::vector<int64_t>& heights,
                               const std::vector<int64_t>& widths,
                               const std::vector<double>& strides,
                               const std::vector<double>& sigmas, const std::vector<double>& taus,
                               bool square) {
  std::vector<Tensor> results;
  std::vector<Map<scalar_t>> maps;
  for (size_t i = 0; i < heights.size(); ++i) {
    check_target(keypoints, strides[i], sigmas[i], taus[i], square);
    results.push_back(torch::stable::new_empty(
        keypoints, {keypoints.size(0), keypoints.size(2), heights[i], widths[i]}));
    const Gaussian<scalar_t> gaussian{scalar_t(strides[i]), scalar_t(sigmas[i]), scalar_t(taus[i]),
                                      square};
    maps.push_back({gaussian, static_cast<int>(heights[i]), static_cast<int>(widths[i]),
                    results.back().mutable_data_ptr<scalar_t>()});
  }
  render<scalar_t>(keypoints, maps);
  return results;
}

std::vector<Tensor> render_heatmaps(Tensor keypoints, std::vector<int64_t> heights,
                                    std::vector<int64_t> widths, std::vector<double> strides,
                                    std::vector<double> sigmas, std::vector<double> taus,
                                    bool square) {
  check_dim(keypoints, 4, "keypoints [B, P, J, 3]");
  STD_TORCH_CHECK(heights.size() == widths.size() && heights.size() == strides.size() &&
                      heights.size() == sigmas.size() && heights.size() == taus.size(),
                  "heights, widths, strides, sigmas and taus must be of one length");
  const bool wide = keypoints.scalar_type() == ScalarType::Double;
  const Tensor points = as_type(keypoints, wide ? ScalarType::Double : ScalarType::Float);
  return wide ? render_all<double>(points, heights, widths, strides, sigmas, taus, square)
              : render_all<float>(points, heights, widths, strides, sigmas, taus, square);
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("render_heatmaps", TORCH_BOX(&render_heatmaps)); }

}  // namespace
}  // namespace dhn
