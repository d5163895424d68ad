// Missing joints: the input pixel where score - round(|tag - person's mean tag|) is greatest.
//
// A first kernel finds, for every tile of input pixels, the highest score and the range of each tag
// dimension of the map pixels that it reads: one pass over the maps, a warp per tile, without the
// planes of joints that no one lacks. Blends stay within these ranges, so they bound what a tile
// can give. In the second kernel a block searches for one person's joint: it evaluates the most
// promising tile, then those whose bound is not below the best value found so far.
#pragma once
#include <cfloat>
#include <cmath>

#include "cuda/best.cuh"
#include "cuda/read_peaks.cuh"

namespace dhn::cuda {

constexpr int kRefineThreads = 256, kRefineTile = 32, kRefineTagDims = 8;
constexpr int kRefineSlots = 32;  // blocks per joint's map; each takes every 32nd person

// The sizes of a call. people: [B, M, J, 3 + T].
struct RefineSizes {
  int M, J, T, h, w, H, W, tiles_x, tiles;
};

struct TileBlock {  // output pixels [left, right) x [top, bottom)
  int left, top, right, bottom;
};
__device__ __forceinline__ TileBlock tile_block(const RefineSizes& s, int tile) {
  const int left = tile % s.tiles_x * kRefineTile, top = tile / s.tiles_x * kRefineTile;
  return {left, top, min(left + kRefineTile, s.W), min(top + kRefineTile, s.H)};
}

// Whether the person lacks the joint.
__device__ __forceinline__ bool lacks(const float* __restrict__ people, const RefineSizes& s,
                                      std::int64_t person, int joint) {
  return !(people[(person * s.J + joint) * (3 + s.T) + 2] > 0);
}

// bounds [B J, 1 + 2 T, tiles]: highest score; lowest and highest tag of each dimension. The
// highest score of a tile with pixels that are not finite is infinite.
template <typename map_t>
__global__ void __launch_bounds__(kRefineThreads)
    tile_bounds_kernel(const map_t* __restrict__ heatmaps, const map_t* __restrict__ tags,
                       const float* __restrict__ people, const std::int64_t* __restrict__ counts,
                       const RefineSizes s, std::int64_t warps, float* __restrict__ bounds) {
  const int lane = threadIdx.x % 32;
  const std::int64_t warp =
      (static_cast<std::int64_t>(blockIdx.x) * kRefineThreads + threadIdx.x) / 32;
  if (warp >= warps) return;
  const std::int64_t plane = warp / s.tiles, image = plane / s.J;
  const int joint = static_cast<int>(plane % s.J), tile = static_cast<int>(warp % s.tiles);
  bool wanted = false;
  const int count = static_cast<int>(min(counts[image], static_cast<std::int64_t>(s.M)));
  for (int m = lane; m < count; m += 32) wanted |= lacks(people, s, image * s.M + m, joint);
  if (!__any_sync(kFullWarp, wanted)) return;

  const TileBlock block = tile_block(s, tile);
  const Span rows = source_span(block.top, block.bottom, s.h, s.H);
  const Span columns = source_span(block.left, block.right, s.w, s.W);
  const int span_w = columns.end - columns.begin;
  const int pixels = span_w * (rows.end - rows.begin);
  float* const out = bounds + plane * (1 + 2 * s.T) * s.tiles + tile;
  bool finite = true;
  float highest = -FLT_MAX;
  for (int map = -1; map < s.T; ++map) {  // the heatmap, then the tag maps
    const std::int64_t area = static_cast<std::int64_t>(s.h) * s.w;
    const map_t* const values =
        map < 0 ? heatmaps + plane * area : tags + (plane * s.T + map) * area;
    float low = FLT_MAX, high = -FLT_MAX;
    for (int i = lane; i < pixels; i += 32) {
      const int y = rows.begin + i / span_w, x = columns.begin + i % span_w;
      const float value = static_cast<float>(values[static_cast<std::int64_t>(y) * s.w + x]);
      finite &= fabsf(value) <= FLT_MAX;
      low = fminf(low, value);
      high = fmaxf(high, value);
    }
    low = warp_min(low);
    high = warp_max(high);
    if (map < 0) {
      highest = high + fabsf(high) * kBlendSlack;
    } else if (lane == 0) {
      const float slack = fmaxf(fabsf(low), fabsf(high)) * kBlendSlack;
      out[(1 + 2 * map) * s.tiles] = low - slack;
      out[(2 + 2 * map) * s.tiles] = high + slack;
    }
  }
  finite = !__any_sync(kFullWarp, !finite);
  if (lane == 0) out[0] = finite ? fminf(highest, FLT_MAX) : INFINITY;
}

struct RefineStorage {
  float mean[kRefineTagDims];  // of the person's tags
  Key best;
  Key promising;  // the tile of the highest bound
  int queue[kRefineThreads], queued;
  Tap taps_x[kRefineTile], taps_y[kRefineTile];
};

// One joint's maps, searched for one person after another by a whole block.
template <typename map_t>
class JointSearch {
 public:
  __device__ JointSearch(RefineStorage& storage, const RefineSizes& sizes, const map_t* heatmap,
                         const map_t* tags, const float* bounds)
      : s_(storage), sizes_(sizes), heatmap_(heatmap), tags_(tags), bounds_(bounds) {}

  // The key of the best pixel for storage.mean; kPoison if a map is not finite.
  __device__ Key find() {
    if (threadIdx.x == 0) {
      s_.best = 0;
      s_.promising = 0;
    }
    __syncthreads();
    Key promising = 0;
    bool poisoned = false;
    for (int tile = threadIdx.x; tile < sizes_.tiles; tile += kRefineThreads) {
      const float bound = tile_bound(tile);
      poisoned |= !(bound <= FLT_MAX);
      promising = max(promising, make_key(bound, tile));
    }
    promising = warp_max(promising);
    if (threadIdx.x % 32 == 0) atomicMax(&s_.promising, promising);
    if (__syncthreads_or(poisoned)) return kPoison;
    const int first = static_cast<int>(key_index(s_.promising));
    evaluate(first);
    for (int base = 0; base < sizes_.tiles; base += kRefineThreads) visit_promising(base, first);
    return s_.best;
  }

 private:
  // The greatest value that a pixel of the tile could have.
  __device__ float tile_bound(int tile) const {
    float squared = 0;
    for (int t = 0; t < sizes_.T; ++t) {
      const float low = bounds_[(1 + 2 * t) * sizes_.tiles + tile];
      const float high = bounds_[(2 + 2 * t) * sizes_.tiles + tile];
      const float gap = fmaxf(fmaxf(low - s_.mean[t], s_.mean[t] - high), 0.f);
      squared += gap * gap;
    }
    return bounds_[tile] - limited_distance(round_half_even(sqrtf(squared)));
  }

  // Evaluates those of the next kRefineThreads tiles that may hold a better pixel, or an equal one
  // of lower index.
  __device__ void visit_promising(int base, int already) {
    if (threadIdx.x == 0) s_.queued = 0;
    __syncthreads();
    const int tile = base + static_cast<int>(threadIdx.x);
    if (tile < sizes_.tiles && tile != already && tile_bound(tile) >= key_score(s_.best)) {
      s_.queue[atomicAdd(&s_.queued, 1)] = tile;
    }
    __syncthreads();
    for (int i = 0; i < s_.queued; ++i) {
      if (tile_bound(s_.queue[i]) >= key_score(s_.best)) evaluate(s_.queue[i]);
    }
    __syncthreads();
  }

  // Raises best to the best pixel of a tile. Begins after a barrier and ends with one.
  __device__ void evaluate(int tile) {
    const TileBlock block = tile_block(sizes_, tile);
    const int width = block.right - block.left, height = block.bottom - block.top;
    fill_taps(s_.taps_x, width, block.left, sizes_.w, sizes_.W);
    fill_taps(s_.taps_y, height, block.top, sizes_.h, sizes_.H);
    __syncthreads();
    const std::int64_t area = static_cast<std::int64_t>(sizes_.h) * sizes_.w;
    Key best = 0;
    for (int i = threadIdx.x; i < width * height; i += kRefineThreads) {
      const Tap &y = s_.taps_y[i / width], &x = s_.taps_x[i % width];
      float squared = 0;
      for (int t = 0; t < sizes_.T; ++t) {
        const float gap = fabsf(read_bilinear(tags_ + t * area, sizes_.w, y, x) - s_.mean[t]);
        squared += gap * gap;
      }
      const float value = read_bilinear(heatmap_, sizes_.w, y, x) -
                          limited_distance(round_half_even(sqrtf(squared)));
      const unsigned index =
          static_cast<unsigned>(block.top + i / width) * sizes_.W + block.left + i % width;
      best = max(best, make_key(value, index));
    }
    best = warp_max(best);
    if (threadIdx.x % 32 == 0) atomicMax(&s_.best, best);
    __syncthreads();
  }

  RefineStorage& s_;
  const RefineSizes& sizes_;
  const map_t *heatmap_, *tags_;
  const float* bounds_;
};

// Mean tag of a person over the joints it has, in the order of joints; one thread per dimension.
__device__ __forceinline__ void mean_tag(const float* __restrict__ person, const RefineSizes& s,
                                         float* mean) {
  const int t = threadIdx.x;
  if (t >= s.T) return;
  float sum = 0, joints = 0;
  for (int j = 0; j < s.J; ++j) {
    const float* const joint = person + j * (3 + s.T);
    if (!(joint[2] > 0)) continue;
    joints += 1;
    sum += joint[3 + t];
  }
  mean[t] = finite_mean(sum / fmaxf(joints, 1.f));
}

template <typename map_t>
__global__ void __launch_bounds__(kRefineThreads, 3)
    refine_people_kernel(const map_t* __restrict__ heatmaps, const map_t* __restrict__ tags,
                         const float* __restrict__ people, const std::int64_t* __restrict__ counts,
                         const RefineSizes s, const float* __restrict__ bounds, bool subpixel,
                         float* __restrict__ keypoints) {
  __shared__ RefineStorage storage;
  const std::int64_t plane = blockIdx.x / kRefineSlots, image = plane / s.J;
  const std::int64_t area = static_cast<std::int64_t>(s.h) * s.w;
  const int joint = static_cast<int>(plane % s.J);
  const map_t* const heatmap = heatmaps + plane * area;
  JointSearch<map_t> search(storage, s, heatmap, tags + plane * s.T * area,
                            bounds + plane * (1 + 2 * s.T) * s.tiles);
  const int count = static_cast<int>(min(counts[image], static_cast<std::int64_t>(s.M)));
  for (int m = blockIdx.x % kRefineSlots; m < count; m += kRefineSlots) {
    const std::int64_t person = image * s.M + m;
    const float* const row = people + person * s.J * (3 + s.T);
    float* const out = keypoints + (person * s.J + joint) * 3;  // zero until now
    if (!lacks(people, s, person, joint)) {
      if (threadIdx.x < 3) out[threadIdx.x] = row[joint * (3 + s.T) + threadIdx.x];
      continue;
    }
    __syncthreads();  // all are done with the last person
    mean_tag(row, s, storage.mean);
    const Key best = search.find();
    if (threadIdx.x != 0) continue;
    if (best == kPoison) {
      out[2] = NAN;
      continue;
    }
    const ResizedMap<map_t> map{heatmap, s.h, s.w, s.H, s.W};
    const int index = static_cast<int>(key_index(best));
    const float score = read_at(map, index % s.W, index / s.W);
    if (!(score > 0)) continue;
    const Offset at = position(map, index % s.W, index / s.W, subpixel);
    out[0] = at.x;
    out[1] = at.y;
    out[2] = score;
  }
}

}  // namespace dhn::cuda
