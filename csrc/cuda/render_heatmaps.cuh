// Gaussian targets: the maximum over people, all maps of a call in one launch.
//
// A block draws one tile of one joint's map. It first gathers, into shared memory, the people whose
// disc or square touches the tile (most tiles: none), then every thread finds the least squared
// distance over them for its 4 pixels and takes one exp per pixel: exp is monotonic, so the maximum
// of the values is the value at the minimum. Stores are 16 bytes wide.
#pragma once
#include "common/gaussian.h"
#include "cuda/device.cuh"

namespace dhn::cuda {

constexpr int kMaxMaps = 8;                          // of one launch
constexpr int kTileW = 64, kTileH = 16;              // pixels of a tile
constexpr int kRenderThreads = kTileW * kTileH / 4;  // each draws 4 pixels of a row
// How many blocks shall fit on a multiprocessor: with this the compiler neither spills registers
// nor takes too many.
template <typename scalar_t>
constexpr int kRenderBlocks = sizeof(scalar_t) == 4 ? 4 : 2;
constexpr int kRenderPeople = kRenderThreads;  // looked at between two barriers

template <typename scalar_t>
struct RenderMap {
  scalar_t* out;  // [B, J, height, width]
  int height, width;
  int tiles_x, first_tile;  // the tiles of one joint are numbered through all maps
  Gaussian<scalar_t> gaussian;
  scalar_t rate;  // gaussian_rate
};
template <typename scalar_t>
struct RenderMaps {
  RenderMap<scalar_t> maps[kMaxMaps];
  int count, tiles;  // tiles of all maps of one joint
};

template <typename scalar_t>
struct Centre {
  scalar_t x, y;
};

// The people whose disc or square touches a tile, gathered by the whole block, kRenderPeople at a
// time.
template <typename scalar_t>
struct NearbyPeople {
  Centre<scalar_t> centres[kRenderPeople];
  int count;
};

// gaussian_offset in two steps, because only the first divides: where the centre is, and how far a
// pixel lies from it.
template <typename scalar_t>
__device__ __forceinline__ scalar_t centre_of(const Gaussian<scalar_t>& g, scalar_t coordinate) {
  return g.target == Target::square ? trunc(coordinate / g.stride) : coordinate;
}
template <typename scalar_t>
__device__ __forceinline__ scalar_t offset_from(const Gaussian<scalar_t>& g, int index,
                                                scalar_t centre) {
  const bool square = g.target == Target::square;
  return (square ? scalar_t(index) : (scalar_t(index) + scalar_t(0.5)) * g.stride) - centre;
}
// Whether some pixel first .. last of one axis lies within reach.
template <typename scalar_t>
__device__ __forceinline__ bool near_span(const Gaussian<scalar_t>& g, int first, int last,
                                          scalar_t centre) {
  const scalar_t reach = gaussian_reach(g);
  return offset_from(g, first, centre) <= reach && offset_from(g, last, centre) >= -reach;
}

// Joint `joint` of people p0 .. p0 + kRenderPeople that touch the tile at (x0, y0). Ends with a
// barrier.
template <typename scalar_t>
__device__ void gather_people(NearbyPeople<scalar_t>& nearby,
                              const scalar_t* __restrict__ keypoints, int p0, int P, int J,
                              const Gaussian<scalar_t>& g, int height, int width, int x0, int y0) {
  if (threadIdx.x == 0) nearby.count = 0;
  __syncthreads();
  const int p = p0 + static_cast<int>(threadIdx.x);
  if (p < P) {
    const scalar_t* keypoint = keypoints + static_cast<std::int64_t>(p) * J * 3;
    const scalar_t x = centre_of(g, keypoint[0]), y = centre_of(g, keypoint[1]);
    if (gaussian_counts(g, height, width, keypoint[0], keypoint[1], keypoint[2]) &&
        near_span(g, x0, min(x0 + kTileW, width) - 1, x) &&
        near_span(g, y0, min(y0 + kTileH, height) - 1, y)) {
      nearby.centres[atomicAdd(&nearby.count, 1)] = {x, y};
    }
  }
  __syncthreads();
}

// Lowers the squared distances of 4 pixels of row v, from column u on, to those of the gathered
// people.
template <typename scalar_t>
__device__ __forceinline__ void lower_distances(scalar_t (&least)[4],
                                                const NearbyPeople<scalar_t>& nearby,
                                                const Gaussian<scalar_t>& g, int u, int v) {
  const scalar_t reach = gaussian_reach(g);
  const bool square = g.target == Target::square;
  for (int i = 0; i < nearby.count; ++i) {
    const Centre<scalar_t> centre = nearby.centres[i];
    const scalar_t dy = offset_from(g, v, centre.y);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const scalar_t dx = offset_from(g, u + k, centre.x);
      const scalar_t d2 = dx * dx + dy * dy;
      const bool inside = square ? fabs(dx) <= reach && fabs(dy) <= reach : d2 <= reach * reach;
      if (inside && d2 < least[k]) least[k] = d2;
    }
  }
}

constexpr float kFarAway = 1e30f;  // a squared distance that no one is within

// The target at a pixel at this squared distance from its nearest person; `rate` is gaussian_rate.
template <typename scalar_t>
__device__ __forceinline__ scalar_t value_at(scalar_t squared_distance, scalar_t rate) {
  return squared_distance < scalar_t(kFarAway) ? exp(squared_distance * rate) : scalar_t(0);
}
// -1 / sigma^2 (disc) or -1 / (2 sigma^2) (square).
inline double gaussian_rate(const Gaussian<double>& g) {
  return -1 / ((g.target == Target::square ? 2 : 1) * g.sigma * g.sigma);
}

template <typename scalar_t>
__global__ void __launch_bounds__(kRenderThreads, kRenderBlocks<scalar_t>)
    render_heatmaps_kernel(const scalar_t* __restrict__ keypoints, int P, int J,
                           const RenderMaps<scalar_t> all) {
  __shared__ NearbyPeople<scalar_t> nearby;
  const int tile = blockIdx.x % all.tiles, joint = blockIdx.x / all.tiles % J;
  const std::int64_t image = blockIdx.x / all.tiles / J;
  int m = 0;
  while (m + 1 < all.count && tile >= all.maps[m + 1].first_tile) ++m;
  const RenderMap<scalar_t>& map = all.maps[m];
  const int x0 = (tile - map.first_tile) % map.tiles_x * kTileW;
  const int y0 = (tile - map.first_tile) / map.tiles_x * kTileH;
  const int u = x0 + static_cast<int>(threadIdx.x) % (kTileW / 4) * 4;
  const int v = y0 + static_cast<int>(threadIdx.x) / (kTileW / 4);

  scalar_t least[4] = {kFarAway, kFarAway, kFarAway, kFarAway};
  for (int p0 = 0; p0 < P; p0 += kRenderPeople) {
    gather_people(nearby, keypoints + (image * P * J + joint) * 3, p0, P, J, map.gaussian,
                  map.height, map.width, x0, y0);
    lower_distances(least, nearby, map.gaussian, u, v);
    __syncthreads();
  }
  if (v >= map.height) return;

  scalar_t* const row = map.out + ((image * J + joint) * map.height + v) * map.width;
  scalar_t values[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) values[k] = value_at(least[k], map.rate);
  store4(row, u, map.width, values);
}

}  // namespace dhn::cuda
