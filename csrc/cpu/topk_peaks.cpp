#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "tiles.h"

namespace dhn {
namespace {

struct Peak {
  float score;
  int64_t index;  // Y * W + X
};

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

// Finds the peaks of one map at a time.
class PeakFinder {
 public:
  PeakFinder(const Grid& grid, const Tiles& tiles, int kernel, float threshold)
      : grid_(grid),
        tiles_(tiles),
        radius_(kernel / 2),
        threshold_(threshold),
        reader_(grid),
        bounds_(grid),
        highest_(tiles.count()) {}

  // All peaks of `map`, in no order; false if the map is not finite.
  bool find(const float* map, std::vector<Peak>& peaks) {
    peaks.clear();
    if (!bounds_.greatest(map, highest_.data())) return false;
    for (int tile = 0; tile < tiles_.count(); ++tile) {
      const float bound = highest_[tile] + std::fabs(highest_[tile]) * kBlendSlack;
      if (bound > threshold_) search(map, tiles_.block(tile), peaks);
    }
    return true;
  }

 private:
  // The peaks among a tile's input pixels.
  void search(const float* map, const Block& own, std::vector<Peak>& peaks) {
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

  bool is_peak(const Block& seen, int X, int Y, float value) const {
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

  const Grid& grid_;
  const Tiles& tiles_;
  int radius_;
  float threshold_;
  BlockReader reader_;
  TileBounds bounds_;
  std::vector<float> highest_, values_;
  std::vector<uint8_t> marks_;  // of one row of a tile
};

// scores, indices: K slots of one map.
void write_best(std::vector<Peak>& peaks, int64_t K, float* scores, int64_t* indices) {
  const int64_t found = std::min<int64_t>(K, peaks.size());
  std::partial_sort(peaks.begin(), peaks.begin() + found, peaks.end(), better);
  for (int64_t k = 0; k < K; ++k) {
    scores[k] = k < found ? peaks[k].score : 0.0f;
    indices[k] = k < found ? peaks[k].index : 0;
  }
}

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
    PeakFinder finder(grid, tiles, static_cast<int>(kernel), static_cast<float>(threshold));
    std::vector<Peak> peaks;
    for (int64_t plane = begin; plane < end; ++plane) {
      if (finder.find(pixels + plane * grid.area(), peaks)) {
        write_best(peaks, k, score + plane * k, index + plane * k);
      } else {
        std::fill_n(score + plane * k, k, std::numeric_limits<float>::quiet_NaN());
        std::fill_n(index + plane * k, k, 0);
      }
    }
  });
  return {scores, indices};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("topk_peaks", TORCH_BOX(&topk_peaks)); }

}  // namespace
}  // namespace dhn
