#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "checks.h"
#include "position.h"
#include "tiles.h"

namespace dhn {
namespace {

constexpr int kLanes = 16;  // running extremes, because the compiler may not reorder a single one

// The greatest of f(0), f(1), ...
template <typename F>
DHN_INLINE float greatest(int count, const F& f) {
  float most[kLanes];
  std::fill_n(most, kLanes, -std::numeric_limits<float>::infinity());
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) most[lane] = max_of(most[lane], f(i + lane));
  }
  for (; i < count; ++i) most[0] = max_of(most[0], f(i));
  return *std::max_element(most, most + kLanes);
}

DHN_CLONES float greatest_of(const float* values, int count) {
  return greatest(count, [=](int i) __attribute__((always_inline)) { return values[i]; });
}

DHN_CLONES float magnitude(const float* values, int count) {
  return greatest(count,
                  [=](int i) __attribute__((always_inline)) { return std::fabs(values[i]); });
}

// distance2[i] += scale * gap^2, where gap is how far `tag` lies from [low[i], high[i]], less
// slack.
DHN_CLONES void add_gap(const float* low, const float* high, float tag, float slack, float scale,
                        int count, float* __restrict distance2) {
  for (int i = 0; i < count; ++i) {
    const float gap = max_of(max_of(low[i] - tag, tag - high[i]) - slack, 0.0f);
    distance2[i] += scale * (gap * gap);
  }
}

// values[i] = score[i] + slack - round(sqrt(distance2[i])), and the greatest of them.
DHN_CLONES float refinement_values(const float* score, const float* distance2, float slack,
                                   int count, float* values) {
  return greatest(count, [=](int i) __attribute__((always_inline)) {
    return values[i] = score[i] + slack - round_half_even(std::sqrt(distance2[i]));
  });
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
        bounds_(grid),
        highest_(tiles.count()),
        low_(T * tiles.count()),
        high_(T * tiles.count()),
        distance2_(tiles.count()),
        possible_(tiles.count()) {}

  // Bounds of every tile; false if a pixel is not finite. heatmap [h, w], tags [T, h, w]; `find` is
  // about to be called for so many people.
  bool prepare(const float* heatmap, const float* tags, int64_t people) {
    heatmap_ = heatmap;
    tags_ = tags;
    keep_ = people > 2;
    bool finite = bounds_.greatest_blend(heatmap, highest_.data());
    if (T_ > 1) {
      finite &=
          bounds_.ranges_of_pair(tags, tags + grid_.area(), {{low(0), low(1)}, {high(0), high(1)}});
    }
    for (int64_t t = T_ > 1 ? 2 : 0; t < T_; ++t) {
      finite &= bounds_.range(tags + t * grid_.area(), low(t), high(t));
    }
    const int count = tiles_.count();
    score_slack_ = magnitude(highest_.data(), count) * kBlendSlack;
    tag_slack_ = 0;
    for (int64_t t = 0; t < T_; ++t) {
      const float most = max_of(magnitude(low(t), count), magnitude(high(t), count));
      tag_slack_ = max_of(tag_slack_, most * kBlendSlack);
    }
    pixels_.clear();
    first_pixel_.assign(count, -1);
    tags_read_.assign(count, false);
    return finite;
  }

  // The best pixel for a person of mean tag `mean` [T]: tiles in order of the best they could give,
  // until that is less than what was found.
  Best find(const float* mean) {
    const float most = bound_tiles(mean);
    Best best;
    int first = 0;
    while (possible_[first] != most) ++first;
    visit(first, mean, best);
    queue_.clear();
    for (int tile = 0; tile < tiles_.count(); ++tile) {
      if (possible_[tile] >= best.value && tile != first) queue_.push_back(tile);
    }
    const auto worse = [&](int a, int b) { return possible_[a] < possible_[b]; };
    std::make_heap(queue_.begin(), queue_.end(), worse);
    while (!queue_.empty() && possible_[queue_.front()] >= best.value) {
      visit(queue_.front(), mean, best);
      std::pop_heap(queue_.begin(), queue_.end(), worse);
      queue_.pop_back();
    }
    return best;
  }

 private:
  // Bounds of tag t per tile. The first two are bounded along the diagonals, as their sum and their
  // difference: tags of the plain and the flipped pass nearly agree, so they scatter along one.
  float* low(int64_t t) { return low_.data() + t * tiles_.count(); }
  float* high(int64_t t) { return high_.data() + t * tiles_.count(); }

  // possible_: per tile the most that score - round(distance) can be; returns the most of all.
  // Slack is more than rounding can add to a blend, to the sum of two and to that of the means.
  float bound_tiles(const float* mean) {
    const int count = tiles_.count();
    std::fill(distance2_.begin(), distance2_.end(), 0.0f);
    for (int64_t t = 0; t < T_; ++t) {
      const bool diagonal = T_ > 1 && t < 2;
      const float sum = mean[0] + mean[1], difference = mean[0] - mean[1];
      const float tag = !diagonal ? mean[t] : t == 0 ? sum : difference;
      const float slack = 3 * (tag_slack_ + std::fabs(tag) * kBlendSlack);
      const float scale = diagonal ? 0.5f - kBlendSlack : 1.0f;
      add_gap(low(t), high(t), tag, slack, scale, count, distance2_.data());
    }
    return refinement_values(highest_.data(), distance2_.data(), score_slack_, count,
                             possible_.data());
  }

  // Looks at every input pixel of a tile; at its tags only if its scores leave something to find.
  void visit(int tile, const float* mean, Best& best) {
    const Block block = tiles_.block(tile);
    const int count = block.width() * block.height();
    if (count == 0) return;
    float* scores = pixels(tile, block, count);
    const float nearest = round_half_even(std::sqrt(distance2_[tile]));
    if (highest_[tile] + score_slack_ - nearest < best.value) return;
    if (!tags_read_[tile]) {
      for (int64_t t = 0; t < T_; ++t) {
        reader_.read(tags_ + t * grid_.area(), block, scores + (1 + t) * count);
      }
      tags_read_[tile] = true;
    }
    values_.assign(count, 0.0f);
    for (int64_t t = 0; t < T_; ++t) {
      const float* tag = scores + (1 + t) * count;
      add_gap(tag, tag, mean[t], 0, 1, count, values_.data());
    }
    if (refinement_values(scores, values_.data(), 0, count, values_.data()) < best.value) return;
    for (int i = 0; i < count; ++i) {
      if (values_[i] < best.value) continue;
      const int X = block.left + i % block.width(), Y = block.top + i / block.width();
      const int64_t index = int64_t(Y) * grid_.W + X;
      if (best.beaten_by(values_[i], index)) best = {values_[i], scores[i], index};
    }
  }

  // Room for heatmap and tags of a tile's input pixels, [1 + T, pixels], with the scores read: from
  // then on the tile's bound is exact. They are kept, because the tiles worth a visit are the same
  // for most people; but for one or two, fresh memory costs more than reading again.
  float* pixels(int tile, const Block& block, int count) {
    if (first_pixel_[tile] < 0 || !keep_) {
      if (!keep_) {
        pixels_.clear();
        tags_read_[tile] = false;
      }
      first_pixel_[tile] = static_cast<int64_t>(pixels_.size());
      pixels_.resize(pixels_.size() + (1 + T_) * count);
      float* scores = pixels_.data() + first_pixel_[tile];
      reader_.read(heatmap_, block, scores);
      highest_[tile] = greatest_of(scores, count);
    }
    return pixels_.data() + first_pixel_[tile];
  }

  const Grid& grid_;
  const Tiles& tiles_;
  int64_t T_;
  const float *heatmap_ = nullptr, *tags_ = nullptr;
  BlockReader reader_;
  TileBounds bounds_;
  std::vector<float> highest_, low_, high_;  // per tile; low_ and high_ [T, tiles]
  std::vector<float> distance2_, possible_;  // per tile, for one person
  std::vector<int> queue_;                   // of tiles
  std::vector<float> pixels_, values_;       // per input pixel of a tile
  std::vector<int64_t> first_pixel_;         // per tile: where its part of pixels_ begins, or -1
  std::vector<bool> tags_read_;              // per tile: whether the part's tags are there, too
  bool keep_ = false;                        // what was read, for the next person
  float score_slack_ = 0, tag_slack_ = 0;
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

  // Only maps of a joint that somebody lacks; threads take equal shares of these.
  std::vector<int64_t> searched, lacking;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t j = 0; j < J; ++j) {
      int64_t people_lacking = 0;
      for (int64_t m = 0; m < count[b]; ++m) {
        const float* joint = person + ((b * M + m) * J + j) * (3 + T);
        std::copy(joint, joint + 3, out + ((b * M + m) * J + j) * 3);
        people_lacking += !(joint[2] > 0);
      }
      if (people_lacking == 0) continue;
      searched.push_back(b * J + j);
      lacking.push_back(people_lacking);
    }
  }

  const Grid grid(maps.size(2), maps.size(3), height, width);
  const Tiles tiles(grid);
  torch::stable::parallel_for(0, searched.size(), 1, [&](int64_t begin, int64_t end) {
    JointSearch joint_search(grid, tiles, T);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = searched[i], b = plane / J, j = plane % J;
      const float* map = pixels + plane * grid.area();
      const float* tag_map = tag_pixels + plane * T * grid.area();
      const bool finite = joint_search.prepare(map, tag_map, lacking[i]);
      for (int64_t m = 0; m < count[b]; ++m) {
        float* keypoint = out + ((b * M + m) * J + j) * 3;
        if (keypoint[2] > 0) continue;
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
