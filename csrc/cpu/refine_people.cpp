#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "position.h"
#include "tiles.h"

namespace dhn {
namespace {

DHN_CLONES bool tile_max(const float* map, int h, int w, TileScratch& scratch, float* high) {
  return tile_range_body(map, h, w, scratch, high, nullptr);
}

DHN_CLONES bool tile_range(const float* map, int h, int w, TileScratch& scratch, float* high,
                           float* low) {
  return tile_range_body(map, h, w, scratch, high, low);
}

// distance2[i] += how far `tag` lies from [low[i], high[i]], squared.
DHN_CLONES void add_gap(const float* low, const float* high, float tag, int count,
                        float* __restrict distance2) {
  for (int i = 0; i < count; ++i) {
    const float gap = max_of(max_of(low[i] - tag, tag - high[i]), 0.0f);
    distance2[i] += gap * gap;
  }
}

// values[i] = score[i] - round(sqrt(distance2[i])), in place of distance2.
DHN_CLONES void refinement_values(const float* score, int count, float* __restrict distance2) {
  for (int i = 0; i < count; ++i) {
    distance2[i] = score[i] - round_half_even(std::sqrt(distance2[i]));
  }
}

struct Best {
  float value = -std::numeric_limits<float>::infinity();
  float score = 0;
  int64_t index = 0;  // Y * W + X

  bool beaten_by(float other, int64_t at) const {
    return other > value || (other == value && at < index);
  }
};

// Searches the maps of one joint for people who lack it.
class JointSearch {
 public:
  JointSearch(const Grid& grid, const Tiles& tiles, int64_t T)
      : grid_(grid),
        tiles_(tiles),
        T_(T),
        reader_(grid),
        scratch_(grid.w),
        highest_(tiles.count()),
        low_(T * tiles.count()),
        high_(T * tiles.count()),
        bounds_(tiles.count()) {}

  // Bounds of every tile; false if a pixel is not finite. heatmap [h, w], tags [T, h, w].
  bool prepare(const float* heatmap, const float* tags) {
    heatmap_ = heatmap;
    tags_ = tags;
    const int count = tiles_.count();
    bool finite = tile_max(heatmap, grid_.h, grid_.w, scratch_, highest_.data());
    for (float& highest : highest_) highest += std::fabs(highest) * kBlendSlack;
    for (int64_t t = 0; t < T_; ++t) {
      float *low = low_.data() + t * count, *high = high_.data() + t * count;
      finite &= tile_range(tags + t * grid_.area(), grid_.h, grid_.w, scratch_, high, low);
      for (int i = 0; i < count; ++i) {
        const float slack = max_of(std::fabs(low[i]), std::fabs(high[i])) * kBlendSlack;
        low[i] -= slack;
        high[i] += slack;
      }
    }
    return finite;
  }

  // The best pixel for a person of mean tag `mean` [T]: tiles in order of the best they could give,
  // until that is less than what was found.
  Best find(const float* mean) {
    const int count = tiles_.count();
    std::fill(bounds_.begin(), bounds_.end(), 0.0f);
    for (int64_t t = 0; t < T_; ++t) {
      add_gap(low_.data() + t * count, high_.data() + t * count, mean[t], count, bounds_.data());
    }
    refinement_values(highest_.data(), count, bounds_.data());

    Best best;
    const auto first = std::max_element(bounds_.begin(), bounds_.end()) - bounds_.begin();
    search(static_cast<int>(first), mean, best);
    queue_.clear();
    for (int tile = 0; tile < count; ++tile) {
      if (bounds_[tile] >= best.value && tile != first) queue_.push_back(tile);
    }
    const auto worse = [&](int a, int b) { return bounds_[a] < bounds_[b]; };
    std::make_heap(queue_.begin(), queue_.end(), worse);
    while (!queue_.empty() && bounds_[queue_.front()] >= best.value) {
      search(queue_.front(), mean, best);
      std::pop_heap(queue_.begin(), queue_.end(), worse);
      queue_.pop_back();
    }
    return best;
  }

 private:
  void search(int tile, const float* mean, Best& best) {
    const Block block = tiles_.block(tile);
    if (block.width() <= 0 || block.height() <= 0) return;
    const int count = block.width() * block.height();
    scores_.resize(count);
    tag_.resize(count);
    values_.assign(count, 0.0f);
    reader_.read(heatmap_, block, scores_.data());
    for (int64_t t = 0; t < T_; ++t) {
      reader_.read(tags_ + t * grid_.area(), block, tag_.data());
      add_gap(tag_.data(), tag_.data(), mean[t], count, values_.data());
    }
    refinement_values(scores_.data(), count, values_.data());
    for (int i = 0; i < count; ++i) {
      if (values_[i] < best.value) continue;
      const int64_t index =
          int64_t(block.top + i / block.width()) * grid_.W + block.left + i % block.width();
      if (best.beaten_by(values_[i], index)) best = {values_[i], scores_[i], index};
    }
  }

  const Grid& grid_;
  const Tiles& tiles_;
  int64_t T_;
  const float *heatmap_ = nullptr, *tags_ = nullptr;
  BlockReader reader_;
  TileScratch scratch_;
  std::vector<float> highest_, low_, high_, bounds_;  // per tile; low_ and high_ [T, tiles]
  std::vector<int> queue_;
  std::vector<float> scores_, tag_, values_;  // of one block
};

// people [J, 3 + T] of one person -> mean tag [T] over the joints the person has.
void mean_tag(const float* person, int64_t J, int64_t T, float* mean) {
  std::fill_n(mean, T, 0.0f);
  float joints = 0;
  for (int64_t j = 0; j < J; ++j) {
    const float* joint = person + j * (3 + T);
    if (!(joint[2] > 0)) continue;
    joints += 1;
    for (int64_t t = 0; t < T; ++t) mean[t] += joint[3 + t];
  }
  for (int64_t t = 0; t < T; ++t) mean[t] /= std::max(joints, 1.0f);
}

Tensor refine_people(Tensor heatmaps, Tensor tags, Tensor people, Tensor counts, int64_t height,
                     int64_t width, bool subpixel) {
  check_maps(heatmaps, height, width);
  check_tags(tags, heatmaps);
  check_people(people, counts, tags);
  const Tensor maps = as_float32(heatmaps), tag_maps = as_float32(tags);
  const Tensor found = as_float32(people), numbers = as_type(counts, ScalarType::Long);
  const int64_t B = maps.size(0), J = maps.size(1), T = tags.size(2), M = people.size(1);
  Tensor keypoints = torch::stable::new_zeros(maps, {B, M, J, 3});
  const float* pixels = maps.const_data_ptr<float>();
  const float* tag_pixels = tag_maps.const_data_ptr<float>();
  const float* person = found.const_data_ptr<float>();
  const int64_t* count = numbers.const_data_ptr<int64_t>();
  float* out = keypoints.mutable_data_ptr<float>();

  int64_t most = 0;
  for (int64_t b = 0; b < B; ++b) {
    STD_TORCH_CHECK(count[b] >= 0 && count[b] <= M, "counts must lie in 0..", M);
    most = std::max(most, count[b]);
  }
  std::vector<float> means(B * most * T);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t m = 0; m < count[b]; ++m) {
      mean_tag(person + (b * M + m) * J * (3 + T), J, T, means.data() + (b * most + m) * T);
    }
  }

  const Grid grid(maps.size(2), maps.size(3), height, width);
  const Tiles tiles(grid);
  torch::stable::parallel_for(0, B * J, 1, [&](int64_t begin, int64_t end) {
    JointSearch joint_search(grid, tiles, T);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t b = plane / J, j = plane % J;
      const float* map = pixels + plane * grid.area();
      bool prepared = false, finite = true;
      for (int64_t m = 0; m < count[b]; ++m) {
        const float* joint = person + ((b * M + m) * J + j) * (3 + T);
        float* keypoint = out + ((b * M + m) * J + j) * 3;
        std::copy(joint, joint + 3, keypoint);
        if (joint[2] > 0) continue;
        if (!prepared) finite = joint_search.prepare(map, tag_pixels + plane * T * grid.area());
        prepared = true;
        if (!finite) {
          keypoint[2] = std::numeric_limits<float>::quiet_NaN();
          continue;
        }
        const Best best = joint_search.find(means.data() + (b * most + m) * T);
        if (!(best.score > 0)) continue;
        const Offset at = position(grid, map, static_cast<int>(best.index % width),
                                   static_cast<int>(best.index / width), subpixel);
        keypoint[0] = at.x;
        keypoint[1] = at.y;
        keypoint[2] = best.score;
      }
    }
  });
  return keypoints;
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("refine_people", TORCH_BOX(&refine_people)); }

}  // namespace
}  // namespace dhn
