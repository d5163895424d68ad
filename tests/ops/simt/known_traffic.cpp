// Kernels whose traffic anyone can count, for test_traffic.py.
#include <cstdlib>

#include "builtins.h"

namespace {

// Each lane reads a value, `stride` further than the one before it, and keeps it.
template <class T>
__global__ void read_global(const T* values, int stride) {
  const T value = values[threadIdx.x * stride];
  asm volatile("" ::"r"(&value) : "memory");
}
template <class T>
__global__ void read_shared(int stride) {
  __shared__ T values[1024];
  asm volatile("" ::"r"(values) : "memory");  // else g++ knows that nobody has written them
  const T value = values[threadIdx.x * stride % 1024];
  asm volatile("" ::"r"(&value) : "memory");
}
__global__ void sum_up(unsigned* out) {
  __shared__ unsigned sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, 1u);
  __syncthreads();
  if (threadIdx.x == 0) *out = sum;
}

template <class T>
void read(bool shared, int stride) {
  T* const values = static_cast<T*>(std::aligned_alloc(128, 1024 * sizeof(T)));
  simt::launch(1, 32, [&] { shared ? read_shared<T>(stride) : read_global(values, stride); });
  std::free(values);
}

}  // namespace

extern "C" void known_read(int size, bool shared, int stride) {
  if (size == 2) read<unsigned short>(shared, stride);
  if (size == 4) read<float>(shared, stride);
  if (size == 8) read<float2>(shared, stride);
  if (size == 16) read<float4>(shared, stride);
}
// How many threads there are, as they count themselves.
extern "C" unsigned known_sum() {
  unsigned* const out = static_cast<unsigned*>(std::malloc(sizeof(unsigned)));
  simt::launch(3, 64, [&] { sum_up(out); });
  const unsigned sum = *out;
  std::free(out);
  return sum;
}
