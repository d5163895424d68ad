// The threads of a block as fibers: what the SIMT runner (simt.h) keeps of each, and how it
// switches from one to the next.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#if !defined(__x86_64__) || !defined(__linux__)
#error \
    "the SIMT runner switches stacks in x86-64 assembly and finds shared memory through Linux's loader"
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void __tsan_java_init(unsigned long, unsigned long);
void __tsan_java_alloc(unsigned long, unsigned long);
}
#define SIMT_ACQUIRE(p) __tsan_acquire(p)
#define SIMT_RELEASE(p) __tsan_release(p)
#else
#define SIMT_ACQUIRE(p) ((void)0)
#define SIMT_RELEASE(p) ((void)0)
#endif
// The runner itself is not what is under test.
#define SIMT_RUNNER __attribute__((noinline, no_sanitize("thread", "address", "undefined")))
// Where a built-in was called: default arguments are evaluated at the call.
#define SIMT_HERE int line = __builtin_LINE(), const char *file = __builtin_FILE()

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace simt {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
enum class Order : int { forward, reverse, random };  // in which threads and blocks take turns
struct Config {
  Order order = Order::forward;
  std::uint64_t seed = 1;
  int poison = 0xFF;  // byte laid over shared memory when a block starts (0xFF: NaN, -1)
  int planted = 0;    // which bug is live, where bugs.py has planted some; 0: none
  std::uint64_t max_turns = 100000000;  // of a block's threads; more is a live-lock
};
inline Config config;

enum class State : unsigned char { ready, at_barrier, at_warp, done };
enum class Collective : unsigned char { none, shuffle, vote, syncwarp };

struct Context {  // a stack and what runs on it; the threads of successive blocks take turns on it
  void* sp = nullptr;
  char* stack = nullptr;
  const void* asan_stack = nullptr;
  std::size_t asan_size = 0;
  void* asan_fake = nullptr;
  void* tsan = nullptr;
};
struct Thread {  // a CUDA thread
  Context* context = nullptr;
  State state = State::done;
  Collective collective = Collective::none;
  int index = 0;
  uint3 idx;
  int line = 0;  // where it waits
  const char* file = "";
  std::uint32_t mask = 0, votes = 0;
  std::uint64_t in = 0, lanes[32];  // what it gives to a collective; what all lanes gave
  unsigned barriers = 0, syncwarps = 0;
  char sync[2];  // addresses by which the race detector knows the orderings of __syncwarp ...
  char* acquired[32];
};
constexpr int kMaxThreads = 1024;
constexpr std::size_t kStack = 256 * 1024, kGuard = 4096;

struct Runner {
  Context contexts[kMaxThreads], main;
  Thread threads[kMaxThreads];
  Thread* current = nullptr;
  int n = 0, contexts_made = 0, waiting = 0, finished = 0, count_in = 0, count_out = 0;
  int turn[kMaxThreads];
  std::uint64_t random_state = 1, turns = 0, blocks = 0, atomics = 0;
  char barrier[2], start, end, fence;  // ... and of barriers, launches and fences
  char* shared = nullptr;  // the library's thread-local block: every __shared__ variable
  std::size_t shared_bytes = 0;
  char error[1024] = "";
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  bool running = false;
};
inline Runner runner;
inline thread_local char tls_anchor = 0;

SIMT_RUNNER inline std::uint64_t random_bits() {
  std::uint64_t& s = runner.random_state;
  s ^= s << 13;
  s ^= s >> 7;
  s ^= s << 17;
  return s * 0x2545F4914F6CDD1Dull >> 16;
}

// ---- Fibers.

extern "C" __attribute__((naked, noinline, used)) inline void simt_swap(void**, void*) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
SIMT_RUNNER inline void switch_to([[maybe_unused]] Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.asan_fake, to.asan_stack, to.asan_size);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: taking turns orders nothing
#endif
  simt_swap(&from.sp, to.sp);
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(from.asan_fake, &bottom, &size);
#endif
}
SIMT_RUNNER inline void pause() { switch_to(*runner.current->context, runner.main); }
SIMT_RUNNER inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &runner.main.asan_stack, &runner.main.asan_size);
#endif
  for (;;) {
    Thread& t = *runner.current;
    SIMT_ACQUIRE(&runner.start);
    runner.entry(runner.argument);
    SIMT_RELEASE(&runner.end);
    t.state = State::done;
    ++runner.finished;
    pause();
  }
}
SIMT_RUNNER inline void make_contexts(int n) {
  for (int& made = runner.contexts_made; made < n; ++made) {
    Context& c = runner.contexts[made];
    c.stack = (char*)mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c.stack == MAP_FAILED) throw Error("simt: no memory for stacks");
    mprotect(c.stack, kGuard, PROT_NONE);
    // Else the tops of all stacks would fall into one set of the cache.
    const std::size_t colour = made * 7 % 64 * 64;
    c.asan_stack = c.stack + kGuard;
    c.asan_size = kStack - kGuard - colour;
    void** top = (void**)(c.stack + kStack - colour);
    std::fill(top - 8, top, nullptr);
    top[-2] = (void*)fiber_main;
    c.sp = top - 8;
#if defined(__SANITIZE_THREAD__)
    c.tsan = __tsan_create_fiber(0);
#endif
  }
}
SIMT_RUNNER inline void drop_contexts() {  // after an error: their stacks hold half-run kernels
  for (int& made = runner.contexts_made; made; --made) {
    Context& c = runner.contexts[made - 1];
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(c.stack, kStack);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(c.tsan);
#endif
    munmap(c.stack, kStack);
  }
}

}  // namespace simt
