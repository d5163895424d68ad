#include "cuda_source_hash.h"

// What dhn/_native.py compares with the sources it finds, to tell a stale library.
extern "C" __attribute__((visibility("default"))) const char* dhn_cuda_source_hash() {
  return DHN_CUDA_SOURCE_HASH;
}
