// Finds the peaks of one heatmap at a time (ops.cpp: topk_peaks).
#pragma once

#include <vector>

#include "cpu/tiles.h"

namespace dhn {

struct Peak {
  float score;
  int64_t index;  // Y * W + X
};

class PeakFinder {
 public:
  // kernel: side of the window; only scores above `threshold` are peaks.
  PeakFinder(const Grid& grid, const Tiles& tiles, int64_t kernel, double threshold);

  // Finds at most the K best peaks of `map` [h, w], best first; returns false if the map is not
  // finite. Writes its TileBounds::greatest_blend to bounds [tiles.count()].
  bool find(const float* map, int64_t K, float* bounds, std::vector<Peak>& peaks);

 private:
  void search(const float* map, const Block& own, std::vector<Peak>& peaks);
  bool is_peak(const float* centre, int stride) const;

  const Grid& grid_;
  const Tiles& tiles_;
  int radius_;
  float threshold_;
  BlockReader reader_;
  TileBounds bounds_;
  std::vector<float> values_;           // of a tile and its surroundings
  std::vector<float> kept_, greatest_;  // of a tile: what can be a peak, per column the greatest
};

}  // namespace dhn
