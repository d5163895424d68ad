#include "topk_peaks.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"

namespace dhn {
namespace {

bool better(const Peak& a, const Peak& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

// marks[x] = whether row[x] can be a peak: above the threshold and no less than its neighbours.
DHN_CLONES void mark_maxima(const float* row, int stride, int count, float threshold,
                            uint8_t* __restrict marks) {
  for (int x = 0; x < count; ++x) {
    const float value = row[x];
    marks[x] = (value > threshold) & (value >= row[x - 1]) & (value >= row[x + 1]) &
               (value >= row[x - stride]) & (value >= row[x + stride]);
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

// The peaks among a tile's input pixels.
void PeakFinder::search(const float* map, const Block& own, std::vector<Peak>& peaks) {
  if (own.width() == 0 || own.height() == 0) return;
  const int halo = std::max(radius_, 1);
  const Block seen{std::max(own.left - halo, 0), std::max(own.top - halo, 0),
                   std::min(own.right + halo, grid_.W), std::min(own.bottom + halo, grid_.H)};
  const int stride = seen.width();
  values_.resize(size_t(stride) * seen.height());
  reader_.read(map, seen, values_.data());
  for (int Y = own.top; Y < own.bottom; ++Y) {
    const float* row = values_.data() + size_t(Y - seen.top) * stride + (own.left - seen.left);
    // Pixels at the border of the map lack a neighbour and are all looked at.
    const int first = own.left == seen.left, last = own.right == seen.right;
    marks_.assign(own.width(), 1);
    if (radius_ > 0 && Y > seen.top && Y < seen.bottom - 1) {
      mark_maxima(row + first, stride, own.width() - first - last, threshold_,
                  marks_.data() + first);
    }
    for (int i = 0; i < own.width(); ++i) {
      if (marks_[i] && row[i] > threshold_ && is_peak(seen, own.left + i, Y, row[i])) {
        peaks.push_back({row[i], int64_t(Y) * grid_.W + own.left + i});
      }
    }
  }
}

bool PeakFinder::is_peak(const Block& seen, int X, int Y, float value) const {
  const int left = std::max(X - radius_, 0), right = std::min(X + radius_, grid_.W - 1);
  const int top = std::max(Y - radius_, 0), bottom = std::min(Y + radius_, grid_.H - 1);
  for (int y = top; y <= bottom; ++y) {
    const float* row = values_.data() + size_t(y - seen.top) * seen.width() - seen.left;
    for (int x = left; x <= right; ++x) {
      if (row[x] > value) return false;
    }
  }
  return true;
}

namespace {

std::tuple<Tensor, Tensor> topk_peaks(Tensor heatmaps, int64_t k, int64_t kernel, int64_t height,
                                      int64_t width, double threshold) {
  check_maps(heatmaps, height, width);
  check_peaks(k, kernel, threshold);
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
