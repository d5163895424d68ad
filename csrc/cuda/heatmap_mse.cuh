// Masked mean squared error to a target that is never written, and its gradient.
//
// A block takes one tile of one joint's map, as render_heatmaps does: it gathers the people whose
// disc or square touches the tile, finds the target of 4 pixels per thread in registers, and reads
// predictions and mask in accesses of 4. Forward, it writes one partial sum; a second kernel adds
// up those of an image, always in the same order, so that the loss is the same in every run.
#pragma once
#include "common/boxes.h"
#include "cuda/render_heatmaps.cuh"

namespace dhn::cuda {

// What all planes of a call share.
template <typename scalar_t>
struct MseInputs {
  const scalar_t* keypoints;  // [B, P, J, 3]
  const scalar_t* mask;       // [B, mask_joints, height, width] or null
  const scalar_t* boxes;      // [B, P, 4] or null
  int mask_joints;            // 1 or J
  int P, J, height, width, tiles_x, tiles;
  Gaussian<scalar_t> gaussian;
  scalar_t rate;
};

// What a thread works on: pixels u .. u + 3 of row v of one plane.
struct Place {
  std::int64_t image, row;  // row: of [B, J, height]
  int u, v;
};

// Sets the mask to 0 at a thread's pixels where the joint of somebody may be that nobody knows of,
// and where nothing is drawn. `least` are the squared distances of lower_distances.
template <typename scalar_t>
__device__ __forceinline__ void leave_out_unknown(const MseInputs<scalar_t>& inputs,
                                                  const Place& at, int joint,
                                                  const scalar_t (&least)[4], scalar_t (&mask)[4]) {
  const std::int64_t person = at.image * inputs.P;
  for (int p = 0; p < inputs.P; ++p) {
    // All threads read the same numbers.
    if (!(inputs.keypoints[((person + p) * inputs.J + joint) * 3 + 2] < scalar_t(0))) continue;
    const scalar_t* const box = inputs.boxes + (person + p) * 4;
    if (!interval_holds(box[1], box[3], inputs.gaussian.stride, at.v)) continue;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (interval_holds(box[0], box[2], inputs.gaussian.stride, at.u + k) &&
          value_at(least[k], inputs.rate) == scalar_t(0)) {
        mask[k] = 0;
      }
    }
  }
}

// Finds prediction - target and the mask at a thread's pixels. Below the map the errors are 0,
// beyond the end of a row the mask is. Called by all threads of the block together.
template <typename scalar_t, typename map_t>
__device__ __forceinline__ Place find_errors(const MseInputs<scalar_t>& inputs,
                                             const map_t* __restrict__ prediction,
                                             NearbyPeople<scalar_t>& nearby, scalar_t (&errors)[4],
                                             scalar_t (&mask)[4]) {
  const int tile = blockIdx.x % inputs.tiles, joint = blockIdx.x / inputs.tiles % inputs.J;
  Place at;
  at.image = blockIdx.x / inputs.tiles / inputs.J;
  const int x0 = tile % inputs.tiles_x * kTileW, y0 = tile / inputs.tiles_x * kTileH;
  at.u = x0 + static_cast<int>(threadIdx.x) % (kTileW / 4) * 4;
  at.v = y0 + static_cast<int>(threadIdx.x) / (kTileW / 4);
  at.row = (at.image * inputs.J + joint) * inputs.height + at.v;
  const bool inside = at.v < inputs.height;
  // Loaded first, so that it is on its way while people are gathered.
  if (inside) load4(prediction + at.row * inputs.width, at.u, inputs.width, errors);
  scalar_t least[4] = {kFarAway, kFarAway, kFarAway, kFarAway};
  const scalar_t* const keypoints = inputs.keypoints + (at.image * inputs.P * inputs.J + joint) * 3;
  for (int p0 = 0; p0 < inputs.P; p0 += kRenderPeople) {
    gather_people(nearby, keypoints, p0, inputs.P, inputs.J, inputs.gaussian, inputs.height,
                  inputs.width, x0, y0);
    lower_distances(least, nearby, inputs.gaussian, at.u, at.v);
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    errors[k] = inside ? errors[k] - value_at(least[k], inputs.rate) : 0;
    mask[k] = at.u + k < inputs.width;
  }
  if (inside && inputs.mask) {
    const std::int64_t plane = at.image * inputs.mask_joints + joint % inputs.mask_joints;
    load4(inputs.mask + (plane * inputs.height + at.v) * inputs.width, at.u, inputs.width, mask);
  }
  if (inside && inputs.boxes) leave_out_unknown(inputs, at, joint, least, mask);
  return at;
}

// partial[block] = sum of mask * (prediction - target)^2 over the block's tile.
template <typename scalar_t, typename map_t>
__global__ void __launch_bounds__(kRenderThreads, kRenderBlocks<scalar_t>)
    heatmap_mse_kernel(const MseInputs<scalar_t> inputs, const map_t* __restrict__ prediction,
                       double* __restrict__ partial) {
  __shared__ NearbyPeople<scalar_t> nearby;
  __shared__ scalar_t warp_sums[kRenderThreads / 32];
  scalar_t errors[4], mask[4];
  find_errors(inputs, prediction, nearby, errors, mask);
  scalar_t sum = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) sum += mask[k] * (errors[k] * errors[k]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (scalar_t part : warp_sums) total += part;
    partial[blockIdx.x] = total;
  }
}

// One warp per image: loss[b] = sum of the image's partial sums / count.
template <typename scalar_t>
__global__ void __launch_bounds__(32)
    mean_error_kernel(const double* __restrict__ partial, int parts, double count,
                      scalar_t* __restrict__ loss) {
  const double* const mine = partial + static_cast<std::int64_t>(blockIdx.x) * parts;
  double sum = 0;
  for (int i = threadIdx.x; i < parts; i += 32) sum += mine[i];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) loss[blockIdx.x] = static_cast<scalar_t>(sum / count);
}

// out = grad[b] * 2 mask (prediction - target) / count.
template <typename scalar_t, typename map_t>
__global__ void __launch_bounds__(kRenderThreads, kRenderBlocks<scalar_t>)
    heatmap_mse_backward_kernel(const MseInputs<scalar_t> inputs,
                                const map_t* __restrict__ prediction,
                                const scalar_t* __restrict__ grad, double count,
                                map_t* __restrict__ out) {
  __shared__ NearbyPeople<scalar_t> nearby;
  scalar_t errors[4], mask[4];
  const Place at = find_errors(inputs, prediction, nearby, errors, mask);
  if (at.v >= inputs.height) return;
  const scalar_t scale = static_cast<scalar_t>(2 * static_cast<double>(grad[at.image]) / count);
#pragma unroll
  for (int k = 0; k < 4; ++k) errors[k] *= scale * mask[k];
  store4(out + at.row * inputs.width, at.u, inputs.width, errors);
}

}  // namespace dhn::cuda
