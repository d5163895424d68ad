// Associative embedding: one warp groups the candidates of one image.
//
// Joint by joint, the warp compacts the candidates that count, assigns them to the people so far
// (shortest augmenting paths, lanes over columns, as common/assignment.h does with one thread), and
// writes each candidate to its person's row. Mean tags and the assignment's duals live in shared
// memory; costs are computed when they are needed, from a few floats. Only the first max_people can
// be joined, so only their means are kept.
#pragma once
#include <cfloat>

#include "common/assignment.h"
#include "cuda/device.cuh"

namespace dhn::cuda {

constexpr int kMaxGroup = 128;  // candidates of a joint, and people to join
constexpr int kMaxTagDims = 8;
constexpr int kMaxOrder = 256;  // joints

struct GroupSettings {
  unsigned char order[kMaxOrder];
  int J, K, T, max_people;
  float tag_threshold, detection_threshold;
};

struct GroupStorage {
  Assignment<kMaxGroup> work;
  float means[kMaxGroup][kMaxTagDims];  // of the people
  float sums[kMaxGroup][kMaxTagDims];
  float joints[kMaxGroup];  // how many each person has
  int candidates[kMaxGroup];
  int person_of[kMaxGroup];
};

// ||tag - mean||, in the order of operations of csrc/cpu/group_tags.h.
__device__ __forceinline__ float tag_distance(const float* __restrict__ tag, const float* mean,
                                              int T) {
  float sum = 0;
  for (int t = 0; t < T; ++t) {
    const float difference = tag[t] - mean[t];
    sum += difference * difference;
  }
  return limited_distance(sqrtf(sum));
}

// A column and its distance. The nearest comes first, among equals a free one, then the lowest.
struct Nearest {
  double length;
  int rank;  // column, + kMaxGroup if it is taken

  __device__ bool before(const Nearest& other) const {
    return length < other.length || (length == other.length && rank < other.rank);
  }
};
__device__ __forceinline__ Nearest warp_nearest(Nearest mine) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const Nearest other{__shfl_xor_sync(kFullWarp, mine.length, lanes),
                        __shfl_xor_sync(kFullWarp, mine.rank, lanes)};
    if (other.before(mine)) mine = other;
  }
  return mine;
}

// assign_rows of common/assignment.h by a warp. Ends with the results visible to all lanes.
template <typename Cost>
__device__ void assign_rows_by_warp(Assignment<kMaxGroup>& a, int rows, int columns,
                                    const Cost& cost) {
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < rows; i += 32) a.row_dual[i] = 0, a.column_of_row[i] = -1;
  for (int j = lane; j < columns; j += 32) a.column_dual[j] = 0, a.row_of_column[j] = -1;

  for (int start = 0; start < rows; ++start) {
    for (int i = lane; i < rows; i += 32) a.row_done[i] = false;
    for (int j = lane; j < columns; j += 32) a.column_done[j] = false, a.path_cost[j] = 1e300;
    __syncwarp();
    double least = 0;
    int sink = -1;
    for (int i = start; sink < 0;) {
      Nearest nearest{DBL_MAX, 2 * kMaxGroup};
      for (int j = lane; j < columns; j += 32) {  // a column belongs to one lane
        if (a.column_done[j]) continue;
        const double through = least + cost(i, j) - a.row_dual[i] - a.column_dual[j];
        if (through < a.path_cost[j]) a.path_cost[j] = through, a.path[j] = i;
        const Nearest here{a.path_cost[j], a.row_of_column[j] < 0 ? j : j + kMaxGroup};
        if (here.before(nearest)) nearest = here;
      }
      nearest = warp_nearest(nearest);
      const int column = nearest.rank % kMaxGroup;
      least = nearest.length;
      if (lane == 0) a.row_done[i] = true;
      if (lane == column % 32) a.column_done[column] = true;
      if (nearest.rank < kMaxGroup) {
        sink = column;
      } else {
        i = a.row_of_column[column];
      }
    }
    __syncwarp();

    for (int i = lane; i < rows; i += 32) {
      if (a.row_done[i]) {
        a.row_dual[i] += i == start ? least : least - a.path_cost[a.column_of_row[i]];
      }
    }
    for (int j = lane; j < columns; j += 32) {
      if (a.column_done[j]) a.column_dual[j] -= least - a.path_cost[j];
    }
    __syncwarp();
    if (lane == 0) {
      for (int j = sink, i = -1; i != start;) {
        i = a.path[j];
        a.row_of_column[j] = i;
        const int next = a.column_of_row[i];
        a.column_of_row[i] = j;
        j = next;
      }
    }
    __syncwarp();
  }
}

// One image. Pointers are to its part: scores [J, K], xy [J, K, 2], tags [J, K, T],
// people [J K, J, 3 + T], which is zero before.
class Grouping {
 public:
  __device__ Grouping(GroupStorage& storage, const GroupSettings& settings)
      : s_(storage), settings_(settings), lane_(static_cast<int>(threadIdx.x % 32)) {}

  // Returns the number of people.
  __device__ int run(const float* __restrict__ scores, const float* __restrict__ xy,
                     const float* __restrict__ tags, float* __restrict__ people) {
    const int K = settings_.K, T = settings_.T;
    int count = 0;
    for (int n = 0; n < settings_.J; ++n) {
      const int joint = settings_.order[n], first = joint * K;
      const int found = select(scores + first, xy + 2 * first, tags + first * T);
      if (found == 0) continue;
      match(found, min(count, settings_.max_people), scores + first, tags + first * T);
      count = add(found, count, joint, scores + first, xy + 2 * first, tags + first * T, people);
    }
    return count;
  }

 private:
  // Slots of a joint that take part, in their order, into candidates.
  __device__ int select(const float* __restrict__ scores, const float* __restrict__ xy,
                        const float* __restrict__ tags) {
    int found = 0;
    for (int base = 0; base < settings_.K; base += 32) {
      const int k = base + lane_;
      bool takes_part = false;
      if (k < settings_.K) {
        // 0 times a number is 0 unless it is not finite; a sum of large ones could overflow.
        float zero = 0 * scores[k] + 0 * xy[2 * k] + 0 * xy[2 * k + 1];
        for (int t = 0; t < settings_.T; ++t) zero += 0 * tags[k * settings_.T + t];
        takes_part = scores[k] > settings_.detection_threshold && zero == 0;
      }
      const unsigned votes = __ballot_sync(kFullWarp, takes_part);
      if (takes_part) s_.candidates[found + rank_among(votes)] = k;
      found += __popc(votes);
    }
    __syncwarp();
    return found;
  }

  // person_of[i]: whom candidate i joins, or -1 if it starts a person.
  __device__ void match(int found, int people, const float* __restrict__ scores,
                        const float* __restrict__ tags) {
    for (int i = lane_; i < found; i += 32) s_.person_of[i] = -1;
    if (people == 0) return;
    const int T = settings_.T;
    const auto distance = [&](int i, int p) {
      return tag_distance(tags + s_.candidates[i] * T, s_.means[p], T);
    };
    const auto cost = [&](int i, int p) {
      return grouping_cost(distance(i, p), scores[s_.candidates[i]]);
    };
    const bool candidate_rows = found <= people;  // else people are the rows
    const int rows = candidate_rows ? found : people, columns = candidate_rows ? people : found;
    assign_rows_by_warp(s_.work, rows, columns, [&](int row, int column) {
      return candidate_rows ? cost(row, column) : cost(column, row);
    });
    for (int row = lane_; row < rows; row += 32) {
      const int column = s_.work.column_of_row[row];
      const int i = candidate_rows ? row : column, p = candidate_rows ? column : row;
      if (distance(i, p) < settings_.tag_threshold) s_.person_of[i] = p;
    }
    __syncwarp();
  }

  // Writes the candidates to their people, starting those that are missing; returns their number.
  __device__ int add(int found, int count, int joint, const float* __restrict__ scores,
                     const float* __restrict__ xy, const float* __restrict__ tags,
                     float* __restrict__ people) {
    const int T = settings_.T;
    for (int base = 0; base < found; base += 32) {
      const int i = base + lane_;
      const bool starts = i < found && s_.person_of[i] < 0;
      const unsigned votes = __ballot_sync(kFullWarp, starts);
      if (i < found) {
        const int p = starts ? count + rank_among(votes) : s_.person_of[i];
        const int k = s_.candidates[i];
        float* const row = people + (static_cast<std::int64_t>(p) * settings_.J + joint) * (3 + T);
        row[0] = xy[2 * k];
        row[1] = xy[2 * k + 1];
        row[2] = scores[k];
        for (int t = 0; t < T; ++t) row[3 + t] = tags[k * T + t];
        if (p < settings_.max_people) remember(p, starts, tags + k * T);
      }
      count += __popc(votes);
    }
    __syncwarp();
    return count;
  }

  __device__ void remember(int p, bool starts, const float* __restrict__ tag) {
    const float joints = starts ? 1.f : s_.joints[p] + 1.f;
    s_.joints[p] = joints;
    for (int t = 0; t < settings_.T; ++t) {
      const float sum = starts ? tag[t] : s_.sums[p][t] + tag[t];
      s_.sums[p][t] = sum;
      s_.means[p][t] = finite_mean(sum / joints);
    }
  }

  // How many lanes below this one voted.
  __device__ int rank_among(unsigned votes) const { return __popc(votes & ((1u << lane_) - 1)); }

  GroupStorage& s_;
  const GroupSettings& settings_;
  const int lane_;
};

__global__ void __launch_bounds__(32)
    group_tags_kernel(const float* __restrict__ scores, const float* __restrict__ xy,
                      const float* __restrict__ tags, const GroupSettings settings,
                      float* __restrict__ people, std::int64_t* __restrict__ counts) {
  __shared__ GroupStorage storage;
  const int J = settings.J, T = settings.T;
  const std::int64_t image = blockIdx.x, slots = static_cast<std::int64_t>(J) * settings.K;
  Grouping grouping(storage, settings);
  const int count = grouping.run(scores + image * slots, xy + image * slots * 2,
                                 tags + image * slots * T, people + image * slots * J * (3 + T));
  if (threadIdx.x == 0) counts[image] = count;
}

}  // namespace dhn::cuda
