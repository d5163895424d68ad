#include "cuda_source_hash.h"

// dhn/base/native.py compares it with the sources it finds, so that a stale library is refused.
extern "C" __attribute__((visibility("default"))) const char* dhn_cuda_source_hash() {
  return DHN_CUDA_SOURCE_HASH;
}
