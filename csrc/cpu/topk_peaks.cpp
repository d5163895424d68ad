#include "cpu/topk_peaks.h"

#include <torch/csrc/stable/library.h>

#include <limits>

#include "checks.h"

namespace dhn {
namespace {

bool better(const Peak& a, const Peak& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

constexpr float kOutside = -std::numeric_limits<float>::infinity();

// kept [height, width]: a pixel's value where it is above the threshold and no less than the pixels
// `right` and `down` of it and opposite, else 0. greatest [width]: the greatest of each column.
DHN_CLONES void keep_maxima(const float* values, int stride, int width, int height, int right,
                            int down, float threshold, float* __restrict kept,
                            float* __restrict greatest) {
  std::fill_n(greatest, width, 0.0f);
  for (int y = 0; y < height; ++y, values += stride, kept += width) {
#pragma GCC ivdep
    for (int x = 0; x < width; ++x) {
      const float value = values[x];
      const bool maximum = (value > threshold) & (value >= values[x - right]) &
                           (value >= values[x + right]) & (value >= values[x - down]) &
                           (value >= values[x + down]);
      kept[x] = maximum ? value : 0.0f;
      greatest[x] = greatest[x] < kept[x] ? kept[x] : greatest[x];
    }
  }
}

}  // namespace

PeakFinder::PeakFinder(const Grid& grid, const Tiles& tiles, int64_t kernel, double threshold)
    : grid_(grid),
      tiles_(tiles),
      radius_(static_cast<int>(kernel / 2)),
      threshold_(static_cast<float>(threshold)),
      reader_(grid),
      bounds_(grid) {}

bool PeakFinder::find(const float* map, int64_t K, float* bounds, std::vector<Peak>& peaks) {
  peaks.clear();
  if (!bounds_.greatest_blend(map, bounds)) return false;
  for (int tile = 0; tile < tiles_.count(); ++tile) {
    const float bound = bounds[tile] + std::fabs(bounds[tile]) * kBlendSlack;
    if (bound > threshold_) search(map, tiles_.block(tile), peaks);
  }
  const int64_t kept = std::min<int64_t>(K, peaks.size());
  std::partial_sort(peaks.begin(), peaks.begin() + kept, peaks.end(), better);
  peaks.resize(kept);
  return true;
}

// The peaks among a tile's input pixels. What lies outside of the map is less than any peak.
void PeakFinder::search(const float* map, const Block& own, std::vector<Peak>& peaks) {
  const int width = own.width(), height = own.height();
  if (width == 0 || height == 0) return;
  const int halo = std::max(radius_, 1), stride = width + 2 * halo;
  const Block seen{std::max(own.left - halo, 0), std::max(own.top - halo, 0),
                   std::min(own.right + halo, grid_.W), std::min(own.bottom + halo, grid_.H)};
  values_.assign(size_t(stride) * (height + 2 * halo), kOutside);
  float* values = values_.data() + size_t(halo) * stride + halo;  // of the tile's first pixel
  reader_.read(map, seen, values + (seen.top - own.top) * stride + seen.left - own.left, stride);
  kept_.resize(size_t(width) * height);
  greatest_.resize(width);
  const int right = radius_ > 0 ? 1 : 0, down = radius_ > 0 ? stride : 0;
  keep_maxima(values, stride, width, height, right, down, threshold_, kept_.data(),
              greatest_.data());
  for (int x = 0; x < width; ++x) {
    if (greatest_[x] == 0) continue;
    for (int y = 0; y < height; ++y) {
      const float value = kept_[size_t(y) * width + x];
      if (value > 0 && is_peak(values + y * stride + x, stride)) {
        peaks.push_back({value, int64_t(own.top + y) * grid_.W + own.left + x});
      }
    }
  }
}

// Whether no value of the window around `centre` is greater.
bool PeakFinder::is_peak(const float* centre, int stride) const {
  for (int y = -radius_; y <= radius_; ++y) {
    for (int x = -radius_; x <= radius_; ++x) {
      if (centre[y * stride + x] > *centre) return false;
    }
  }
  return true;
}

namespace {

std::tuple<Tensor, Tensor> topk_peaks(Tensor heatmaps, int64_t k, int64_t kernel, int64_t height,
                                      int64_t width, double threshold) {
  check_topk_peaks(heatmaps, k, kernel, height, width, threshold);
  const Tensor maps = as_float32(heatmaps);
  const int64_t B = maps.size(0), J = maps.size(1);
  Tensor scores = torch::stable::new_empty(maps, {B, J, k});
  Tensor indices = torch::stable::new_empty(maps, {B, J, k}, ScalarType::Long);
  const float* pixels = maps.const_data_ptr<float>();
  float* score = scores.mutable_data_ptr<float>();
  int64_t* index = indices.mutable_data_ptr<int64_t>();

  const Grid grid(maps.size(2), maps.size(3), height, width);
  const Tiles tiles(grid);
  torch::stable::parallel_for(0, B * J, 1, [&](int64_t begin, int64_t end) {
    PeakFinder finder(grid, tiles, kernel, threshold);
    std::vector<float> bounds(tiles.count());
    std::vector<Peak> peaks;
    for (int64_t plane = begin; plane < end; ++plane) {
      const bool finite = finder.find(pixels + plane * grid.area(), k, bounds.data(), peaks);
      std::fill_n(score + plane * k, k, finite ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      std::fill_n(index + plane * k, k, 0);
      for (size_t i = 0; i < peaks.size(); ++i) {
        score[plane * k + i] = peaks[i].score;
        index[plane * k + i] = peaks[i].index;
      }
    }
  });
  return {scores, indices};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("topk_peaks", TORCH_BOX(&topk_peaks)); }

}  // namespace
}  // namespace dhn
