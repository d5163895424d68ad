#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "cpu/maps.h"

namespace dhn {
namespace {

using Pointers = std::vector<const float*>;

// line[x] = sum over maps of map[at + x]
DHN_CLONES void sum_lines(const Pointers& maps, size_t at, int width, float* __restrict line) {
  std::copy(maps[0] + at, maps[0] + at + width, line);
  for (size_t i = 1; i < maps.size(); ++i) {
    const float* __restrict row = maps[i] + at;
    for (int x = 0; x < width; ++x) line[x] += row[x];
  }
}

// fine[x] = share * (fine[x] + coarse[x])
DHN_CLONES void add_line(const float* __restrict coarse, float share, int width,
                         float* __restrict fine) {
  for (int x = 0; x < width; ++x) fine[x] = share * (fine[x] + coarse[x]);
}

// out[x] = mean of plain[x] and of what mirrored holds opposite
DHN_CLONES void mean_of_mirrored(const float* __restrict plain, const float* __restrict mirrored,
                                 int width, float* __restrict out) {
  for (int x = 0; x < width; ++x) out[x] = 0.5f * (plain[x] + mirrored[width - 1 - x]);
}

// One pass (plain or flipped) and the lines it works with.
struct Pass {
  Pointers quarter, half;  // [B, J, grid.h, grid.w] and [B, J, grid.H, grid.W]
  std::vector<float> low, high, coarse, fine;

  Pass(const Pointers& quarter, const Pointers& half, const Grid& grid)
      : quarter(quarter), half(half), low(grid.w), high(grid.w), coarse(grid.W), fine(grid.W) {}

  // fine[x] = (mean of half + upsampled mean of quarter) / 2 in row Y of a plane.
  void row(const Grid& grid, int64_t plane, int Y) {
    const Tap& tap = grid.rows[Y];
    const size_t at = plane * grid.area();
    sum_lines(quarter, at + size_t(tap.low) * grid.w, grid.w, low.data());
    sum_lines(quarter, at + size_t(tap.high) * grid.w, grid.w, high.data());
    blend_lines(low.data(), high.data(), tap.weight, grid.w, low.data());
    stretch(grid, low.data(), 0, grid.W, coarse.data());
    sum_lines(half, (plane * grid.H + Y) * size_t(grid.W), grid.W, fine.data());
    add_line(coarse.data(), 0.5f / static_cast<float>(quarter.size()), grid.W, fine.data());
  }
};

Tensor aggregate_heatmaps(std::vector<Tensor> quarter, std::vector<Tensor> half,
                          std::vector<Tensor> quarter_flipped, std::vector<Tensor> half_flipped,
                          std::vector<int64_t> flip) {
  check_aggregate_heatmaps(quarter, half, quarter_flipped, half_flipped, flip);
  std::vector<Tensor> kept;  // owns the converted maps while they are read
  const auto pointers = [&](const std::vector<Tensor>& maps) {
    Pointers result;
    for (const Tensor& map : maps) {
      kept.push_back(as_float32(map));
      result.push_back(kept.back().const_data_ptr<float>());
    }
    return result;
  };
  const Pointers q = pointers(quarter), h = pointers(half);
  const Pointers qf = pointers(quarter_flipped), hf = pointers(half_flipped);
  const int64_t B = half[0].size(0), J = half[0].size(1);
  const Grid grid(quarter[0].size(2), quarter[0].size(3), half[0].size(2), half[0].size(3));
  Tensor result = torch::stable::new_empty(kept[0], {B, J, grid.H, grid.W});
  float* out = result.mutable_data_ptr<float>();

  torch::stable::parallel_for(0, B * J, 1, [&](int64_t begin, int64_t end) {
    Pass plain(q, h, grid), flipped(qf, hf, grid);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t mirrored = qf.empty() ? 0 : plane / J * J + flip[plane % J];
      for (int Y = 0; Y < grid.H; ++Y) {
        float* row = out + (plane * grid.H + Y) * size_t(grid.W);
        plain.row(grid, plane, Y);
        if (qf.empty()) {
          std::copy(plain.fine.begin(), plain.fine.end(), row);
          continue;
        }
        flipped.row(grid, mirrored, Y);
        mean_of_mirrored(plain.fine.data(), flipped.fine.data(), grid.W, row);
      }
    }
  });
  return result;
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) {
  m.impl("aggregate_heatmaps", TORCH_BOX(&aggregate_heatmaps));
}

}  // namespace
}  // namespace dhn
