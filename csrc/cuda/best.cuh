// The K best of a stream of candidates, kept by a block in shared memory.
#pragma once
#include "cuda/device.cuh"

namespace dhn::cuda {

// A candidate as one integer: the greater, the higher its score, and among equal scores the lower
// its index. 0 is no candidate.
using Key = unsigned long long;
constexpr Key kPoison = ~Key{0};  // a map that holds NaN or infinity; beats every candidate

__device__ __forceinline__ Key make_key(float score, unsigned index) {
  const unsigned bits = __float_as_uint(score + 0.f);  // + 0: -0 and 0 are equal scores
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(ordered) << 32 | ~index;
}
__device__ __forceinline__ float key_score(Key key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}
__device__ __forceinline__ unsigned key_index(Key key) { return ~static_cast<unsigned>(key); }

constexpr int kBestThreads = 256;    // of a block that keeps a Best
constexpr int kBestCapacity = 1024;  // candidates between two sorts: 8 KB
constexpr int kMaxK = kBestCapacity - kBestThreads;

struct BestStorage {
  Key keys[kBestCapacity];
  int count;
};

// Every method is called by all threads of the block together. `count` is the same in all of them.
class Best {
 public:
  __device__ Best(BestStorage& storage, int k) : storage_(storage), k_(k) {
    if (threadIdx.x == 0) storage_.count = 0;
    __syncthreads();
  }

  // Once it is full, what a candidate must exceed to be among the best.
  __device__ bool full() const { return floor_ != 0; }
  __device__ Key floor() const { return floor_; }

  // Each thread offers one candidate, or 0.
  __device__ void offer(Key key) {
    const bool accepted = key > floor_;
    if (accepted) storage_.keys[atomicAdd(&storage_.count, 1)] = key;
    count_ += __syncthreads_count(accepted);
    if (count_ > kBestCapacity - kBestThreads) sort();
  }

  // Brings the best to the front, best first, and forgets the others; returns how many there are
  // (<= K). Without any the first key is 0.
  __device__ int sort() {
    int size = 1;
    while (size < count_) size *= 2;
    for (int i = count_ + threadIdx.x; i < size; i += kBestThreads) storage_.keys[i] = 0;
    if (threadIdx.x == 0) storage_.count = min(count_, k_);
    __syncthreads();
    for (int run = 2; run <= size; run *= 2) {
      for (int step = run / 2; step > 0; step /= 2) {
        for (int i = threadIdx.x; i < size / 2; i += kBestThreads) {
          const int low = 2 * i - (i & (step - 1)), high = low + step;
          const Key a = storage_.keys[low], b = storage_.keys[high];
          if ((a < b) == ((low & run) == 0)) {
            storage_.keys[low] = b;
            storage_.keys[high] = a;
          }
        }
        __syncthreads();
      }
    }
    count_ = min(count_, k_);
    floor_ = count_ == k_ ? storage_.keys[k_ - 1] : 0;
    return count_;
  }

  __device__ Key operator[](int i) const { return storage_.keys[i]; }

 private:
  BestStorage& storage_;
  const int k_;
  int count_ = 0;
  Key floor_ = 0;
};

}  // namespace dhn::cuda
