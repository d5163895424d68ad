// What the SIMT runner tells the counters of memory traffic (traffic.cpp), in the library that is
// built with them.
#pragma once

namespace simt {

#if defined(SIMT_TRAFFIC)
void count_launch();      // a kernel starts
void count_block();       // all threads of a block have returned
void count_barrier();     // the threads of a block have passed a barrier
void count_collective();  // lanes of a warp have passed a shuffle, vote or __syncwarp
void count_atomic(const void* p, int size, int line, const char* file);
#else
inline void count_launch() {}
inline void count_block() {}
inline void count_barrier() {}
inline void count_collective() {}
inline void count_atomic(const void*, int, int, const char*) {}
#endif

}  // namespace simt
