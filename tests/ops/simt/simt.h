// Runs the source of CUDA kernels on the CPU, for tests: g++ on Linux x86-64, one OS thread.
//
// Each CUDA thread of a block is a fiber with a stack of its own; blocks run one after another.
// This shows values, indexing, barriers, warp collectives, bounds (-fsanitize=address,undefined)
// and races (-fsanitize=thread, which takes each CUDA thread for a thread that only CUDA's own
// synchronisation orders). It cannot show speed, real memory ordering or the device's expf.
// builtins.h beside it has CUDA's names; kernels include only that, through csrc/cuda/device.cuh.
#pragma once
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>

#include "fibers.h"
#include "traffic.h"

namespace simt {

// ---- What the built-ins of builtins.h call.

SIMT_RUNNER inline void fail(const char* what, int line, const char* file) {
  snprintf(runner.error, sizeof runner.error, "%s, at %s:%d, block (%u,%u,%u) thread (%u,%u,%u)",
           what, file, line, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
           threadIdx.z);
  for (;;) pause();
}
SIMT_RUNNER inline int barrier(int predicate, int line, const char* file) {
  Thread& t = *runner.current;
  [[maybe_unused]] char* const sync = &runner.barrier[t.barriers++ & 1];
  t.state = State::at_barrier;
  t.line = line;
  t.file = file;
  SIMT_RELEASE(sync);
  runner.count_in += predicate;
  ++runner.waiting;
  pause();
  SIMT_ACQUIRE(sync);
  return runner.count_out;
}
// Lets the lanes of t's mask go if all of them that still run have come.
SIMT_RUNNER inline bool complete(Thread& t) {
  Thread* const warp = runner.threads + (t.index & ~31);
  const int size = std::min(32, runner.n - (t.index & ~31));
  std::uint32_t present = 0, votes = 0;
  for (int i = 0; i < size; ++i) {
    if (!(t.mask >> i & 1) || warp[i].state == State::done) continue;
    if (warp[i].state != State::at_warp || warp[i].collective != t.collective ||
        warp[i].mask != t.mask)
      return false;
    present |= 1u << i;
    votes |= std::uint32_t(warp[i].in != 0) << i;
  }
  std::uint64_t values[32];
  char* syncs[32];
  for (int i = 0; i < 32; ++i) {
    const bool here = present >> i & 1;
    values[i] = here ? warp[i].in : 0xFEFEFEFEFEFEFEFEull;  // rubbish, as on the device
    syncs[i] = here ? &warp[i].sync[warp[i].syncwarps & 1] : nullptr;
  }
  for (int i = 0; i < size; ++i) {
    if (!(present >> i & 1)) continue;
    for (int k = 0; k < 32; ++k) {  // not std::copy: the race detector watches memmove everywhere
      warp[i].lanes[k] = values[k];
      warp[i].acquired[k] = syncs[k];
    }
    warp[i].votes = votes;
    warp[i].state = State::ready;
    ++warp[i].syncwarps;
  }
  count_collective();
  return true;
}
SIMT_RUNNER inline Thread& collective(Collective what, std::uint32_t mask, std::uint64_t value,
                                      int line, const char* file) {
  Thread& t = *runner.current;
  if (!(mask >> (t.index & 31) & 1))
    fail("warp collective: the calling lane is not in its own mask", line, file);
  t.state = State::at_warp;
  t.collective = what;
  t.mask = mask;
  t.in = value;
  t.line = line;
  t.file = file;
  // Only __syncwarp orders memory; shuffles and votes do not.
  if (what == Collective::syncwarp) SIMT_RELEASE(&t.sync[t.syncwarps & 1]);
  if (!complete(t)) pause();
  if (what == Collective::syncwarp)
    for (char* sync : t.acquired)
      if (sync) SIMT_ACQUIRE(sync);
  return t;
}
SIMT_RUNNER inline void before_atomic(const void* p, std::size_t size, int line, const char* file) {
  if ((std::uintptr_t)p % size) fail("misaligned atomic", line, file);
  count_atomic(p, (int)size, line, file);
  const bool yield =
      config.order == Order::random ? (random_bits() & 3) == 0 : (++runner.atomics & 255) == 0;
  // Another thread may come in between, and one that spins does not spin for ever.
  if (yield) pause();
}

// ---- Blocks and launches.

SIMT_RUNNER inline void report_stuck() {
  int counts[4] = {};
  const Thread* first[4] = {};
  for (int i = runner.n - 1; i >= 0; --i) {
    const int state = (int)runner.threads[i].state;
    ++counts[state];
    first[state] = &runner.threads[i];
  }
  std::string text = "divergence in block " + std::to_string(blockIdx.x) + ": " +
                     std::to_string(counts[(int)State::done]) + " threads returned";
  auto add = [&](State state, const char* what) {
    if (const Thread* t = first[(int)state])
      text += "; " + std::to_string(counts[(int)state]) + what + " (thread " +
              std::to_string(t->index) + " at " + t->file + ":" + std::to_string(t->line) + ")";
  };
  add(State::at_barrier, " wait at __syncthreads");
  add(State::at_warp, " wait in a warp collective");
  snprintf(runner.error, sizeof runner.error, "%s", text.c_str());
}
SIMT_RUNNER inline void open_barrier() {
  const Thread* first = nullptr;
  for (int i = 0; i < runner.n; ++i) {
    Thread& t = runner.threads[i];
    if (!first) first = &t;
    if (t.line != first->line || strcmp(t.file, first->file))
      snprintf(runner.error, sizeof runner.error,
               "divergent __syncthreads in block %u: thread 0 at %s:%d, thread %d at %s:%d",
               blockIdx.x, first->file, first->line, t.index, t.file, t.line);
    t.state = State::ready;
  }
  runner.count_out = std::exchange(runner.count_in, 0);
  runner.waiting = 0;
  count_barrier();
}
SIMT_RUNNER inline void run_block() {
  Runner& r = runner;
  r.waiting = r.finished = r.count_in = 0;
  r.turns = 0;
  for (int i = 0; i < r.n; ++i) {
    Thread& t = r.threads[i];
    t.state = State::ready;
    t.barriers = t.syncwarps = 0;
    t.index = i;
    t.idx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    // The race detector is to see two threads in thread i of two blocks.
    t.context = &r.contexts[(i + r.blocks * 37) % r.contexts_made];
    r.turn[i] = config.order == Order::reverse ? r.n - 1 - i : i;
  }
  for (std::size_t i = 0; i < r.shared_bytes; ++i)
    ((volatile char*)r.shared)[i] = (char)config.poison;
  SIMT_RELEASE(&r.start);
  r.running = true;
  while (r.finished < r.n && !r.error[0]) {
    if (config.order == Order::random)
      for (int i = r.n - 1; i > 0; --i) std::swap(r.turn[i], r.turn[random_bits() % (i + 1)]);
    bool moved = false;
    for (int k = 0; k < r.n && !r.error[0]; ++k) {
      Thread& t = r.threads[r.turn[k]];
      if (t.state != State::ready) continue;
      if (++r.turns > config.max_turns) {
        snprintf(r.error, sizeof r.error, "live-lock in block %u", blockIdx.x);
        break;
      }
      r.current = &t;
      threadIdx = t.idx;
      moved = true;
      switch_to(r.main, *t.context);
    }
    if (r.waiting == r.n) {
      open_barrier();
    } else if (!moved && !r.error[0]) {
      bool released = false;
      for (int i = 0; i < r.n; ++i)
        if (r.threads[i].state == State::at_warp) released |= complete(r.threads[i]);
      if (!released) report_stuck();
    }
  }
  r.running = false;
  ++r.blocks;
  count_block();
}

// Static __shared__ variables are thread-local ones: this library's thread-local block then holds
// nothing else, and can be poisoned for each block. (The address sanitizer puts no red zones around
// thread-local variables; for it they are plain statics, with red zones and without poison.)
SIMT_RUNNER inline void find_shared() {
#if !defined(__SANITIZE_ADDRESS__)
  if (runner.shared) return;
  *(volatile char*)&tls_anchor = 1;
  auto visit = [](dl_phdr_info* info, std::size_t, void*) {
    for (int k = 0; k < info->dlpi_phnum; ++k) {
      if (info->dlpi_phdr[k].p_type != PT_TLS) continue;
      char* const begin = (char*)info->dlpi_tls_data;
      const std::size_t size = info->dlpi_phdr[k].p_memsz;
      if (begin && &tls_anchor >= begin && &tls_anchor < begin + size) {
        runner.shared = begin;
        runner.shared_bytes = size;
      }
    }
    return 0;
  };
  dl_iterate_phdr(visit, nullptr);
  if (!runner.shared) throw Error("simt: cannot find the shared variables");
#if defined(__SANITIZE_THREAD__)
  __tsan_java_init((unsigned long)runner.shared & ~7ul, (runner.shared_bytes + 15) & ~7ul);
#endif
#endif
}

// kernel<<<grid, block>>>(arguments...) is simt::launch(grid, block, [&] { kernel(arguments...); })
template <class F>
SIMT_RUNNER void launch(dim3 grid, dim3 block, F&& body) {
  Runner& r = runner;
  const std::uint64_t n = (std::uint64_t)block.x * block.y * block.z;
  const std::uint64_t blocks = (std::uint64_t)grid.x * grid.y * grid.z;
  if (r.running) throw Error("simt: a launch inside a kernel");
  if (!n || n > kMaxThreads || block.z > 64) throw Error("simt: bad block size");
  if (!blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw Error("simt: bad grid size");
  r.n = (int)n;
  r.random_state = config.seed * 0x9E3779B97F4A7C15ull | 1;
  blockDim = block;
  gridDim = grid;
  r.error[0] = 0;
  r.entry = [](void* p) { (*static_cast<std::remove_reference_t<F>*>(p))(); };
  r.argument = (void*)&body;
  make_contexts(r.n);
  find_shared();
  count_launch();
#if defined(__SANITIZE_THREAD__)
  r.main.tsan = __tsan_get_current_fiber();
#endif
  // A random-looking order of blocks: b -> (b * step + offset) mod blocks.
  std::uint64_t step = 1, offset = 0;
  if (config.order == Order::random) {
    offset = random_bits() % blocks;
    for (step = random_bits() % blocks | 1; std::gcd(step, blocks) != 1;) step += 2;
  }
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = config.order == Order::reverse
                                ? blocks - 1 - i
                                : (std::uint64_t)(((unsigned __int128)i * step + offset) % blocks);
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                unsigned(b / ((std::uint64_t)grid.x * grid.y))};
#if defined(__SANITIZE_THREAD__)  // a new block's shared memory is new memory
    __tsan_java_alloc((unsigned long)r.shared & ~7ul, (r.shared_bytes + 15) & ~7ul);
#endif
    run_block();
    if (r.error[0]) {
      drop_contexts();
      throw Error(r.error);
    }
  }
  SIMT_ACQUIRE(&r.end);
}

}  // namespace simt
