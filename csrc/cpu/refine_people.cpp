#include "cpu/refine_people.h"

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <limits>

#include "checks.h"
#include "cpu/read_peaks.h"

namespace dhn {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int kLanes = 16;  // running extremes, because the compiler may not reorder a single one

// The greatest of f(0), f(1), ...
template <typename F>
DHN_INLINE float greatest(int count, const F& f) {
  float most[kLanes];
  std::fill_n(most, kLanes, kNothing);
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
#pragma GCC unroll 1  // unrolled, the lanes would become scalars
    for (int lane = 0; lane < kLanes; ++lane) most[lane] = max_of(most[lane], f(i + lane));
  }
  for (; i < count; ++i) most[0] = max_of(most[0], f(i));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) most[lane] = max_of(most[lane], most[lane + half]);
  }
  return most[0];
}

DHN_CLONES float greatest_of(const float* values, int count) {
  return greatest(count, [=](int i) __attribute__((always_inline)) { return values[i]; });
}

DHN_CLONES float magnitude(const float* values, int count) {
  return greatest(count,
                  [=](int i) __attribute__((always_inline)) { return std::fabs(values[i]); });
}

// distance2[i] += scale * gap^2, where gap is how far `tag` lies outside [low[i], high[i]], less
// the slack.
DHN_CLONES void add_gap(const float* low, const float* high, float tag, float slack, float scale,
                        int count, float* __restrict distance2) {
  for (int i = 0; i < count; ++i) {
    // In this order NaN, inf - inf where a bound overflowed, counts as no gap at all.
    const float gap = max_of(0.0f, max_of(low[i] - tag, tag - high[i]) - slack);
    distance2[i] += scale * (gap * gap);
  }
}

// values[i] = score[i] + slack - round(sqrt(distance2[i])), and the greatest of them.
DHN_CLONES float refinement_values(const float* score, const float* distance2, float slack,
                                   int count, float* values) {
  return greatest(count, [=](int i) __attribute__((always_inline)) {
    return values[i] =
               score[i] + slack - limited_distance(round_half_even(std::sqrt(distance2[i])));
  });
}

struct Best {
  float value = kNothing;
  float score = 0;
  int64_t index = 0;  // Y * W + X

  bool beaten_by(float other, int64_t at) const {
    return other > value || (other == value && at < index);
  }
};

// How many values of tiles a thread keeps: 128 tiles at twice the resolution with T = 2.
constexpr size_t kKept = 96 << 10;

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
        possible_(tiles.count()),
        most_of_row_(tiles.down()) {
    pixels_.reserve(kKept);
  }

  // Bounds of every tile; false if a pixel is not finite. heatmap [h, w], tags [T, h, w]; bounds:
  // of the heatmap's tiles, or null.
  bool prepare(const float* heatmap, const float* tags, const float* bounds) {
    heatmap_ = heatmap;
    tags_ = tags;
    bool finite = true;
    if (bounds != nullptr) {
      std::copy_n(bounds, tiles_.count(), highest_.begin());
    } else {
      finite = bounds_.greatest_blend(heatmap, highest_.data());
    }
    if (T_ > 1) {
      finite &=
          bounds_.ranges_of_pair(tags, tags + grid_.area(), {{low(0), low(1)}, {high(0), high(1)}});
    }
    for (int64_t t = T_ > 1 ? 2 : 0; t < T_; ++t) {
      finite &= bounds_.range(tags + t * grid_.area(), low(t), high(t));
    }
    const int count = tiles_.count();
    // A bound that overflowed is infinite, and must not become NaN.
    const float most_score = magnitude(highest_.data(), count);
    score_slack_ = min_of(most_score, std::numeric_limits<float>::max()) * kBlendSlack;
    tag_slack_ = 0;
    for (int64_t t = 0; t < T_; ++t) {
      const float most = max_of(magnitude(low(t), count), magnitude(high(t), count));
      tag_slack_ = max_of(tag_slack_, most * kBlendSlack);
    }
    forget();
    return finite;
  }

  // Returns the best pixel for a person of mean tag `mean` [T]. Visits tiles in the order of the
  // best value that they could hold, until that is less than the best one found.
  Best find(const float* mean) {
    bound_tiles(mean);
    Best best;
    while (true) {
      const auto row = std::max_element(most_of_row_.begin(), most_of_row_.end());
      if (*row < best.value || *row == kNothing) return best;
      const int first = static_cast<int>(row - most_of_row_.begin()) * tiles_.across();
      float* possible = possible_.data() + first;
      int tile = 0;
      while (possible[tile] != *row) ++tile;
      visit(first + tile, mean, best);
      possible[tile] = kNothing;
      *row = greatest_of(possible, tiles_.across());
    }
  }

 private:
  // Bounds of tag t per tile. The first two are bounded along the diagonals, as their sum and their
  // difference: tags of the plain and the flipped pass nearly agree, so they scatter along one.
  float* low(int64_t t) { return low_.data() + t * tiles_.count(); }
  float* high(int64_t t) { return high_.data() + t * tiles_.count(); }

  // Fills possible_: per tile the most that score - round(distance) can be. The slack is more than
  // rounding can add to a blend, to the sum of two blends and to the sum of the means.
  void bound_tiles(const float* mean) {
    const int count = tiles_.count();
    std::fill(distance2_.begin(), distance2_.end(), 0.0f);
    for (int64_t t = 0; t < T_; ++t) {
      const bool diagonal = T_ > 1 && t < 2;
      const float tag = !diagonal ? mean[t] : t == 0 ? mean[0] + mean[1] : mean[0] - mean[1];
      const float slack = 3 * (tag_slack_ + std::fabs(tag) * kBlendSlack);
      const float scale = diagonal ? 0.5f - kBlendSlack : 1.0f;
      add_gap(low(t), high(t), tag, slack, scale, count, distance2_.data());
    }
    for (int row = 0, first = 0; row < tiles_.down(); ++row, first += tiles_.across()) {
      most_of_row_[row] =
          refinement_values(highest_.data() + first, distance2_.data() + first, score_slack_,
                            tiles_.across(), possible_.data() + first);
    }
  }

  // Looks at every input pixel of a tile, and at its tags only if its scores leave something to
  // find.
  void visit(int tile, const float* mean, Best& best) {
    const Block block = tiles_.block(tile);
    const int count = block.width() * block.height();
    if (count == 0) return;
    float* scores = pixels(tile, block, count);
    const float nearest = limited_distance(round_half_even(std::sqrt(distance2_[tile])));
    if (highest_[tile] + score_slack_ - nearest < best.value) return;
    if (!tags_read_[tile]) {
      for (int64_t t = 0; t < T_; ++t) {
        reader_.read(tags_ + t * grid_.area(), block, scores + (1 + t) * count, block.width());
      }
      tags_read_[tile] = true;
    }
    values_.assign(count, 0.0f);
    for (int64_t t = 0; t < T_; ++t) {
      const float* tag = scores + (1 + t) * count;
      add_gap(tag, tag, mean[t], 0, 1, count, values_.data());
    }
    const float most = refinement_values(scores, values_.data(), 0, count, values_.data());
    if (most < best.value || most == kNothing) return;
    const int i =
        static_cast<int>(std::find(values_.begin(), values_.end(), most) - values_.begin());
    const int X = block.left + i % block.width(), Y = block.top + i / block.width();
    const int64_t index = int64_t(Y) * grid_.W + X;
    if (best.beaten_by(most, index)) best = {most, scores[i], index};
  }

  // Heatmap and tags of a tile's input pixels, [1 + T, pixels], with the scores read: from then on
  // the tile's bound is exact. They are kept for the next person, who may need the same tiles,
  // until there are too many.
  float* pixels(int tile, const Block& block, int count) {
    if (first_pixel_[tile] < 0) {
      const size_t size = (1 + T_) * size_t(count);
      if (pixels_.size() + size > kKept) forget();
      first_pixel_[tile] = static_cast<int64_t>(pixels_.size());
      pixels_.resize(pixels_.size() + size);
      float* scores = pixels_.data() + first_pixel_[tile];
      reader_.read(heatmap_, block, scores, block.width());
      highest_[tile] = greatest_of(scores, count);
    }
    return pixels_.data() + first_pixel_[tile];
  }

  void forget() {
    pixels_.clear();
    first_pixel_.assign(tiles_.count(), -1);
    tags_read_.assign(tiles_.count(), false);
  }

  const Grid& grid_;
  const Tiles& tiles_;
  int64_t T_;
  const float *heatmap_ = nullptr, *tags_ = nullptr;
  BlockReader reader_;
  TileBounds bounds_;
  std::vector<float> highest_, low_, high_;  // per tile; low_ and high_ [T, tiles]
  std::vector<float> distance2_, possible_;  // per tile, for one person
  std::vector<float> most_of_row_;           // the most in a row of possible_
  std::vector<float> pixels_, values_;       // per input pixel of a tile
  std::vector<int64_t> first_pixel_;         // per tile: where its part of pixels_ begins, or -1
  std::vector<bool> tags_read_;              // per tile: whether the part's tags are there, too
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
  for (int64_t t = 0; t < T; ++t) mean[t] = finite_mean(mean[t] / std::max(joints, 1.0f));
}

// A map that has to be searched.
struct Search {
  const Crowd* crowd;
  int64_t joint;
};

// The maps that must be searched for what people lack.
std::vector<Search> missing(const std::vector<Crowd>& crowds, int64_t J) {
  std::vector<Search> searches;
  for (const Crowd& crowd : crowds) {
    for (int64_t j = 0; j < J; ++j) {
      int64_t m = 0;
      while (m < crowd.count && crowd.keypoints[(m * J + j) * 3 + 2] > 0) ++m;
      if (m < crowd.count) searches.push_back({&crowd, j});
    }
  }
  return searches;
}

}  // namespace

void copy_found(const Crowd& crowd, int64_t J, int64_t T) {
  for (int64_t i = 0; i < crowd.count * J; ++i) {
    std::copy_n(crowd.people + i * (3 + T), 3, crowd.keypoints + i * 3);
  }
}

void refine(const Grid& grid, const Tiles& tiles, int64_t J, int64_t T,
            const std::vector<Crowd>& crowds, bool subpixel) {
  const std::vector<Search> searches = missing(crowds, J);
  std::atomic<size_t> next{0};
  // Maps differ in work: a thread that has finished one takes the next.
  torch::stable::parallel_for(0, searches.size(), 1, [&](int64_t, int64_t) {
    JointSearch joint_search(grid, tiles, T);
    std::vector<float> mean(T);
    for (size_t i = next++; i < searches.size(); i = next++) {
      const Crowd& crowd = *searches[i].crowd;
      const int64_t j = searches[i].joint;
      const float* map = crowd.heatmaps + j * grid.area();
      const bool finite = joint_search.prepare(
          map, crowd.tags + j * T * grid.area(),
          crowd.bounds == nullptr ? nullptr : crowd.bounds + j * tiles.count());
      for (int64_t m = 0; m < crowd.count; ++m) {
        float* keypoint = crowd.keypoints + (m * J + j) * 3;
        if (keypoint[2] > 0) continue;
        if (!finite) {
          keypoint[2] = std::numeric_limits<float>::quiet_NaN();
          continue;
        }
        mean_tag(crowd.people + m * J * (3 + T), J, T, mean.data());
        const Best best = joint_search.find(mean.data());
        if (!(best.score > 0)) continue;
        const Offset at = position(grid, map, static_cast<int>(best.index % grid.W),
                                   static_cast<int>(best.index / grid.W), subpixel);
        keypoint[0] = at.x;
        keypoint[1] = at.y;
        keypoint[2] = best.score;
      }
    }
  });
}

namespace {

Tensor refine_people(Tensor heatmaps, Tensor tags, Tensor people, Tensor counts, int64_t height,
                     int64_t width, bool subpixel) {
  check_refine_people(heatmaps, tags, people, counts, height, width);
  const Tensor maps = as_float32(heatmaps), tag_maps = as_float32(tags);
  const Tensor found = as_float32(people), numbers = as_type(counts, ScalarType::Long);
  const int64_t B = maps.size(0), J = maps.size(1), T = tags.size(2), M = people.size(1);
  Tensor keypoints = torch::stable::new_zeros(maps, {B, M, J, 3});
  const Grid grid(maps.size(2), maps.size(3), height, width);
  std::vector<Crowd> crowds;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t count = numbers.const_data_ptr<int64_t>()[b];
    STD_TORCH_CHECK(count >= 0 && count <= M, "counts must lie in 0..", M);
    crowds.push_back({maps.const_data_ptr<float>() + b * J * grid.area(),
                      tag_maps.const_data_ptr<float>() + b * J * T * grid.area(), nullptr,
                      found.const_data_ptr<float>() + b * M * J * (3 + T), count,
                      keypoints.mutable_data_ptr<float>() + b * M * J * 3});
    copy_found(crowds.back(), J, T);
  }
  refine(grid, Tiles(grid), J, T, crowds, subpixel);
  return keypoints;
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("refine_people", TORCH_BOX(&refine_people)); }

}  // namespace
}  // namespace dhn
