// What nvcc knows by itself, for g++: qualifiers, vector types, barriers, warp collectives,
// atomics, intrinsics. Only what the kernels use. Every collective reports its caller's line when
// it goes wrong.
#pragma once
#include <cmath>

#include "simt.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#if defined(__SANITIZE_ADDRESS__)  // see find_shared
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
using std::max;
using std::min;
using cudaStream_t = void*;

#define SIMT_BUILTIN [[maybe_unused]] static inline
SIMT_BUILTIN void __syncthreads(SIMT_HERE) { simt::barrier(0, line, file); }
SIMT_BUILTIN int __syncthreads_count(int p, SIMT_HERE) { return simt::barrier(p != 0, line, file); }
SIMT_BUILTIN int __syncthreads_or(int p, SIMT_HERE) {
  return simt::barrier(p != 0, line, file) != 0;
}
SIMT_BUILTIN void __syncwarp(unsigned mask = ~0u, SIMT_HERE) {
  simt::collective(simt::Collective::syncwarp, mask, 0, line, file);
}
SIMT_BUILTIN unsigned __ballot_sync(unsigned mask, int p, SIMT_HERE) {
  return simt::collective(simt::Collective::vote, mask, p != 0, line, file).votes;
}
SIMT_BUILTIN int __any_sync(unsigned mask, int p, SIMT_HERE) {
  return __ballot_sync(mask, p, line, file) != 0;
}

namespace simt {
template <class T>
SIMT_RUNNER T shuffle(unsigned mask, T value, bool exclusive_or, int a, int line,
                      const char* file) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const Thread& t = collective(Collective::shuffle, mask, bits, line, file);
  const int lane = t.index & 31, source = (exclusive_or ? lane ^ a : a) & 31;
  std::memcpy(&value, &t.lanes[source], sizeof value);
  return value;
}
// A relaxed read-modify-write, as the device's atomics are; returns the old value.
template <class T, class F>
T update(T* p, F next, int line, const char* file) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  before_atomic(p, sizeof(T), line, file);
  Bits* const q = reinterpret_cast<Bits*>(p);
  Bits old_bits = __atomic_load_n(q, __ATOMIC_RELAXED), new_bits;
  T old_value, new_value;
  do {
    std::memcpy(&old_value, &old_bits, sizeof old_value);
    new_value = next(old_value);
    std::memcpy(&new_bits, &new_value, sizeof new_bits);
  } while (!__atomic_compare_exchange_n(q, &old_bits, new_bits, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
  return old_value;
}
template <class T>
using same = std::common_type_t<T>;  // the value takes the pointer's type
}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, SIMT_HERE) {
  return simt::shuffle(mask, value, false, lane, line, file);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, SIMT_HERE) {
  return simt::shuffle(mask, value, true, lanes, line, file);
}
template <class T>
T atomicAdd(T* p, simt::same<T> v, SIMT_HERE) {
  return simt::update(p, [=](T old) { return T(old + v); }, line, file);
}
template <class T>
T atomicMax(T* p, simt::same<T> v, SIMT_HERE) {
  return simt::update(p, [=](T old) { return old > v ? old : v; }, line, file);
}
// A fence orders what its thread did before every later fence's thread: more than the device
// promises.
SIMT_BUILTIN void __threadfence() {
  SIMT_RELEASE(&simt::runner.fence);
  SIMT_ACQUIRE(&simt::runner.fence);
}

template <class To, class From>
SIMT_BUILTIN To simt_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
SIMT_BUILTIN float __uint_as_float(unsigned u) { return simt_bits<float>(u); }
SIMT_BUILTIN unsigned __float_as_uint(float f) { return simt_bits<unsigned>(f); }
SIMT_BUILTIN int __popc(unsigned x) { return __builtin_popcount(x); }
SIMT_BUILTIN int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
