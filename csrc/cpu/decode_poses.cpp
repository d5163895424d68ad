// All of decode on the CPU. The operators of the single steps give the same results, but here every
// heatmap is read only once for peaks and bounds, and nothing is computed for slots that hold no
// candidate.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <tuple>

#include "checks.h"
#include "cpu/group_tags.h"
#include "cpu/read_peaks.h"
#include "cpu/refine_people.h"
#include "cpu/topk_peaks.h"

namespace dhn {
namespace {

struct Maps {
  const float* heatmaps;  // [B, J, h, w]
  const float* tags;      // [B, J, T, h, w]
  int64_t B, J, T;
  const Grid& grid;
  const Tiles& tiles;
};

// As topk_peaks and read_peaks return them, and the bounds of every tile.
struct Candidates {
  std::vector<float> scores, xy, tags;  // [B, J, K], [B, J, K, 2], [B, J, K, T]
  std::vector<float> bounds;            // [B, J, tiles]
  std::vector<char> finite;             // [B, J]
};

Candidates find_candidates(const Maps& maps, int64_t K, int64_t kernel, double threshold,
                           bool subpixel) {
  const int64_t planes = maps.B * maps.J, T = maps.T, tiles = maps.tiles.count();
  Candidates found{std::vector<float>(planes * K), std::vector<float>(planes * K * 2),
                   std::vector<float>(planes * K * T), std::vector<float>(planes * tiles),
                   std::vector<char>(planes)};
  std::atomic<int64_t> next{0};
  // Maps differ in work: a thread that has finished one takes the next.
  torch::stable::parallel_for(0, planes, 1, [&](int64_t, int64_t) {
    PeakFinder finder(maps.grid, maps.tiles, kernel, threshold);
    std::vector<Peak> peaks;
    for (int64_t plane = next++; plane < planes; plane = next++) {
      const float* map = maps.heatmaps + plane * maps.grid.area();
      const float* tags = maps.tags + plane * T * maps.grid.area();
      found.finite[plane] = finder.find(map, K, found.bounds.data() + plane * tiles, peaks);
      int64_t slot = plane * K;
      for (const Peak& peak : peaks) {
        found.scores[slot] = peak.score;
        read_peak(maps.grid, map, tags, T, peak.index, subpixel, found.xy.data() + slot * 2,
                  found.tags.data() + slot * T);
        ++slot;
      }
    }
  });
  return found;
}

struct People {
  std::vector<float> joints;  // [count, J, 3 + T]
  int64_t count;
};

std::vector<People> group(const Maps& maps, const Candidates& found, int64_t K,
                          const GroupingSettings& settings) {
  std::vector<People> people(maps.B);
  const int64_t slots = maps.J * K;
  torch::stable::parallel_for(0, maps.B, 1, [&](int64_t begin, int64_t end) {
    Grouping grouping({maps.J, K, maps.T}, settings);
    for (int64_t b = begin; b < end; ++b) {
      people[b].joints =
          grouping.run(found.scores.data() + b * slots, found.xy.data() + b * slots * 2,
                       found.tags.data() + b * slots * maps.T);
      people[b].count = grouping.count();
    }
  });
  return people;
}

// Mean score over all J joints, missing ones as 0. person [J, 3 + T].
float person_score(const float* person, int64_t J, int64_t T) {
  float sum = 0;
  for (int64_t j = 0; j < J; ++j) sum += person[j * (3 + T) + 2];
  return sum / static_cast<float>(J);
}

bool all_finite(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>, Tensor> decode_poses(
    Tensor heatmaps, Tensor tags, int64_t height, int64_t width, std::vector<int64_t> order,
    int64_t max_people, int64_t kernel, double tag_threshold, double detection_threshold,
    bool refined, bool subpixel, bool munkres) {
  check_decode_poses(heatmaps, tags, height, width, order, max_people, kernel, detection_threshold);
  const Tensor floats = as_float32(heatmaps), tag_floats = as_float32(tags);
  const int64_t B = heatmaps.size(0), J = heatmaps.size(1), T = tags.size(2), K = max_people;
  const Grid grid(heatmaps.size(2), heatmaps.size(3), height, width);
  const Tiles tiles(grid);
  const Maps maps{
      floats.const_data_ptr<float>(), tag_floats.const_data_ptr<float>(), B, J, T, grid, tiles};
  const Candidates found = find_candidates(maps, K, kernel, detection_threshold, subpixel);
  const auto people = group(maps, found, K,
                            {order, max_people, static_cast<float>(tag_threshold),
                             static_cast<float>(detection_threshold), munkres});

  std::vector<Tensor> keypoints, grouped, scores;
  std::vector<Crowd> crowds;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t count = people[b].count;
    const float* joints = people[b].joints.data();
    keypoints.push_back(torch::stable::new_empty(floats, {count, J, 3}));
    crowds.push_back({maps.heatmaps + b * J * grid.area(), maps.tags + b * J * T * grid.area(),
                      found.bounds.data() + b * J * tiles.count(), joints, count,
                      keypoints.back().mutable_data_ptr<float>()});
    copy_found(crowds.back(), J, T);
    grouped.push_back(torch::stable::new_empty(floats, {count, J}, ScalarType::Bool));
    bool* has = grouped.back().mutable_data_ptr<bool>();
    for (int64_t i = 0; i < count * J; ++i) has[i] = joints[i * (3 + T) + 2] > 0;
    scores.push_back(torch::stable::new_empty(floats, {count}));
    float* score = scores.back().mutable_data_ptr<float>();
    for (int64_t m = 0; m < count; ++m) score[m] = person_score(joints + m * J * (3 + T), J, T);
  }
  if (refined) refine(grid, tiles, J, T, crowds, subpixel);

  Tensor finite = torch::stable::new_empty(floats, {B}, ScalarType::Bool);
  for (int64_t b = 0; b < B; ++b) {
    const char* planes = found.finite.data() + b * J;
    finite.mutable_data_ptr<bool>()[b] =
        std::all_of(planes, planes + J, [](char yes) { return yes; }) &&
        all_finite(found.tags.data() + b * J * K * T, J * K * T) &&
        all_finite(crowds[b].keypoints, people[b].count * J * 3);
  }
  return {keypoints, grouped, scores, finite};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("decode_poses", TORCH_BOX(&decode_poses)); }

}  // namespace
}  // namespace dhn
