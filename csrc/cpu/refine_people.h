// Searches maps for the joints that people lack (ops.cpp: refine_people).
#pragma once

#include <vector>

#include "cpu/tiles.h"

namespace dhn {

// One image's maps and its people.
struct Crowd {
  const float* heatmaps;  // [J, h, w]
  const float* tags;      // [J, T, h, w]
  const float* bounds;    // [J, tiles]: from TileBounds::greatest_blend, or null if unknown
  const float* people;    // [count, J, 3 + T] as group_tags returns them
  int64_t count;
  float* keypoints;  // [count, J, 3]: x, y, score as refine_people returns them
};

// Copies the joints that people have to `keypoints`.
void copy_found(const Crowd& crowd, int64_t J, int64_t T);

// Adds to `keypoints` those of the missing joints that can be found.
void refine(const Grid& grid, const Tiles& tiles, int64_t J, int64_t T,
            const std::vector<Crowd>& crowds, bool subpixel);

}  // namespace dhn
