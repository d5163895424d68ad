// Counts what a kernel asks of memory: every access of every CUDA thread, grouped by warps as the
// device groups them.
//
// library.cpp is compiled with -fsanitize=thread, which makes g++ call __tsan_read4(p) and the like
// before each access. Here these are not the race detector's but ours. An access that lies in a
// thread's stack would be a register on the device and is left out, and so are the kernel's
// arguments and the runner's own variables. g++ -O1 keeps an access of 16 bytes as one, as nvcc
// does, and keeps values in registers about as nvcc does; test_sass.py looks at what nvcc made.
//
// A *request* is one instruction of one warp. Threads take turns here and do not run in step, so it
// is found afterwards: those accesses of a warp's lanes belong together that come from the same
// instruction, and that are each lane's n-th at it since its last barrier or collective. Lanes that
// leave a loop early keep that count; lanes that skip a turn within one would shift it, so there
// the number of requests is too small by a little.
#include <link.h>
#include <pthread.h>

#include <array>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "simt.h"

namespace simt {
namespace {

constexpr int kSector = 32;  // bytes: the unit in which L2 gives memory to L1
constexpr int kBanks = 32;   // of shared memory, 4 bytes wide each

enum Kind { kLoad, kStore, kAtomic };

// Counts of one launch.
struct Counts {
  long blocks = 0, threads = 0, barriers = 0, collectives = 0;
  struct Global {
    long requests = 0;  // of warps
    long sectors = 0;   // of all requests, each request's counted once
    long bytes = 0;     // that the requests use of these sectors
    long by_block = 0;  // sectors, each counted once per block: what L1 cannot have
    long once = 0;      // sectors, each counted once
  } global[3];          // by Kind
  struct Shared {
    long requests = 0;
    long cycles = 0;  // that the banks need for them
    long least = 0;   // that they would need without conflicts
  } shared[3];
};

struct Access {
  std::uintptr_t address;
  int size, lane;
};

// Instruction, its place between barriers, and which time it is there; kind and space follow.
using Request = std::tuple<std::uintptr_t, std::uint64_t, int, int, bool>;

std::vector<Counts> launches;
std::vector<std::map<Request, std::vector<Access>>> warps(kMaxThreads / 32);
struct Progress {  // of a thread since its last barrier or collective
  std::uint64_t epoch = ~0ull;
  std::unordered_map<std::uintptr_t, int> passed;
};
std::vector<Progress> progress(kMaxThreads);
std::unordered_set<std::uintptr_t> launch_sectors[3], block_sectors[3];

struct Range {
  std::uintptr_t begin = 0, end = 0;
  bool holds(std::uintptr_t p) const { return begin <= p && p < end; }
};

// Where the runner's variables lie, and the kernel's arguments: this library and the main stack.
struct Own {
  Range library, stack;

  Own() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* self) {
          Range range{~std::uintptr_t{0}, 0};
          for (int k = 0; k < info->dlpi_phnum; ++k) {
            if (info->dlpi_phdr[k].p_type != PT_LOAD) continue;
            const std::uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[k].p_vaddr;
            range.begin = std::min(range.begin, begin);
            range.end = std::max(range.end, begin + info->dlpi_phdr[k].p_memsz);
          }
          if (range.holds(reinterpret_cast<std::uintptr_t>(&runner)))
            static_cast<Own*>(self)->library = range;
          return 0;
        },
        this);
    pthread_attr_t attributes;
    void* low;
    std::size_t size;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &low, &size);
    pthread_attr_destroy(&attributes);
    stack = {reinterpret_cast<std::uintptr_t>(low), reinterpret_cast<std::uintptr_t>(low) + size};
  }
};

void count(std::uintptr_t instruction, const void* p, int size, Kind kind) {
  static bool busy = false;  // the containers used here may be instrumented themselves
  if (busy || !runner.running) return;
  busy = true;
  static const Own own;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p);
  Thread& t = *runner.current;
  const std::uintptr_t stack = reinterpret_cast<std::uintptr_t>(t.context->stack);
  const std::uintptr_t shared = reinterpret_cast<std::uintptr_t>(runner.shared);
  const bool is_shared = Range{shared, shared + runner.shared_bytes}.holds(address);
  if (is_shared || !(Range{stack, stack + kStack}.holds(address) || own.library.holds(address) ||
                     own.stack.holds(address))) {
    Progress& mine = progress[t.index];
    const std::uint64_t epoch = std::uint64_t{t.barriers} << 32 | t.syncwarps;
    if (mine.epoch != epoch) {
      mine.epoch = epoch;
      mine.passed.clear();
    }
    const Request request{instruction, epoch, mine.passed[instruction]++, kind, is_shared};
    warps[t.index / 32][request].push_back({address, size, t.index % 32});
  }
  busy = false;
}

void count_global(const std::vector<Access>& accesses, int kind) {
  std::set<std::uintptr_t> sectors, bytes;
  for (const Access& access : accesses) {
    for (int i = 0; i < access.size; ++i) bytes.insert(access.address + i);
    for (std::uintptr_t sector = access.address / kSector;
         sector <= (access.address + access.size - 1) / kSector; ++sector)
      sectors.insert(sector);
  }
  Counts::Global& counts = launches.back().global[kind];
  ++counts.requests;
  counts.sectors += sectors.size();
  counts.bytes += bytes.size();
  block_sectors[kind].insert(sectors.begin(), sectors.end());
}

// A request of 4 bytes a lane or less is served at once, one of 8 for half of a warp after the
// other, one of 16 for a quarter after the other. Then each bank gives one word a cycle, to all
// lanes that want that word; an atomic serves one lane a cycle.
void count_shared(const std::vector<Access>& accesses, int kind) {
  Counts::Shared& counts = launches.back().shared[kind];
  ++counts.requests;
  std::map<int, std::array<std::multiset<std::uintptr_t>, kBanks>> parts;
  for (const Access& access : accesses) {
    const int lanes = std::min(32, 32 * 4 / access.size);
    auto& banks = parts[access.lane / lanes];
    const std::uintptr_t begin = access.address - reinterpret_cast<std::uintptr_t>(runner.shared);
    for (std::uintptr_t word = begin / 4; word <= (begin + access.size - 1) / 4; ++word) {
      std::multiset<std::uintptr_t>& wanted = banks[word % kBanks];
      if (kind == kAtomic || !wanted.count(word)) wanted.insert(word);
    }
  }
  for (const auto& [part, banks] : parts) {
    std::size_t most = 0;
    for (const auto& wanted : banks) most = std::max(most, wanted.size());
    counts.cycles += most;
    ++counts.least;
  }
}

}  // namespace

void count_launch() {
  launches.emplace_back();
  for (auto& sectors : launch_sectors) sectors.clear();
}
void count_barrier() { ++launches.back().barriers; }
void count_collective() { ++launches.back().collectives; }
void count_atomic(const void* p, int size, int line, const char* file) {
  count(reinterpret_cast<std::uintptr_t>(file) + line, p, size, kAtomic);
}
void count_block() {
  Counts& counts = launches.back();
  ++counts.blocks;
  counts.threads = runner.n;
  for (auto& warp : warps) {
    for (const auto& [request, accesses] : warp) {
      const int kind = std::get<3>(request);
      std::get<4>(request) ? count_shared(accesses, kind) : count_global(accesses, kind);
    }
    warp.clear();
  }
  for (Progress& thread : progress) thread.epoch = ~0ull;
  for (int kind : {kLoad, kStore, kAtomic}) {
    counts.global[kind].by_block += block_sectors[kind].size();
    launch_sectors[kind].insert(block_sectors[kind].begin(), block_sectors[kind].end());
    counts.global[kind].once = launch_sectors[kind].size();
    block_sectors[kind].clear();
  }
}

}  // namespace simt

// The launches since the last call, as JSON.
extern "C" const char* simt_traffic() {
  static std::string json;
  json = "[";
  for (const simt::Counts& counts : simt::launches) {
    json += json.size() > 1 ? ", {" : "{";
    const auto add = [&](const std::string& name, long value) {
      json += (json.back() == '{' ? "\"" : ", \"") + name + "\": " + std::to_string(value);
    };
    add("blocks", counts.blocks);
    add("threads", counts.threads);
    add("barriers", counts.barriers);
    add("collectives", counts.collectives);
    for (int kind : {0, 1, 2}) {
      const std::string name = kind == 0 ? "load" : kind == 1 ? "store" : "atomic";
      const auto& global = counts.global[kind];
      add(name + "_requests", global.requests);
      add(name + "_sectors", global.sectors);
      add(name + "_bytes", global.bytes);
      add(name + "_sectors_by_block", global.by_block);
      add(name + "_sectors_once", global.once);
      add("shared_" + name + "_requests", counts.shared[kind].requests);
      add("shared_" + name + "_cycles", counts.shared[kind].cycles);
      add("shared_" + name + "_least_cycles", counts.shared[kind].least);
    }
    json += "}";
  }
  simt::launches.clear();
  json += "]";
  return json.c_str();
}

// ---- What g++ -fsanitize=thread calls.

#define SIMT_ACCESS(name, size, kind)                                                          \
  extern "C" void __tsan_##name(void* p) {                                                     \
    simt::count(reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)), p, size, kind); \
  }
#define SIMT_ACCESSES(size)                              \
  SIMT_ACCESS(read##size, size, simt::kLoad)             \
  SIMT_ACCESS(write##size, size, simt::kStore)           \
  SIMT_ACCESS(unaligned_read##size, size, simt::kLoad)   \
  SIMT_ACCESS(unaligned_write##size, size, simt::kStore) \
  SIMT_ACCESS(volatile_read##size, size, simt::kLoad)    \
  SIMT_ACCESS(volatile_write##size, size, simt::kStore)
SIMT_ACCESSES(1)
SIMT_ACCESSES(2)
SIMT_ACCESSES(4)
SIMT_ACCESSES(8)
SIMT_ACCESSES(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_read_range(void* p, std::size_t size) {
  simt::count(reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)), p, (int)size,
              simt::kLoad);
}
void __tsan_write_range(void* p, std::size_t size) {
  simt::count(reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)), p, (int)size,
              simt::kStore);
}
}

// The runner's read and write of an atomic: counted by count_atomic.
#define SIMT_ATOMIC(bits)                                                                          \
  extern "C" std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* p, \
                                                            int) {                                 \
    return __atomic_load_n(p, __ATOMIC_RELAXED);                                                   \
  }                                                                                                \
  extern "C" bool __tsan_atomic##bits##_compare_exchange_strong(                                   \
      volatile std::uint##bits##_t* p, std::uint##bits##_t* old, std::uint##bits##_t value, int,   \
      int) {                                                                                       \
    return __atomic_compare_exchange_n(p, old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);  \
  }
SIMT_ATOMIC(32)
SIMT_ATOMIC(64)
// Of reference counts, on the host.
extern "C" std::uint32_t __tsan_atomic32_fetch_add(volatile std::uint32_t* p, std::uint32_t value,
                                                   int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
