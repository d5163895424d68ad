// The host's side of a launch: the tensor's device, the current stream, the error check.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include "checks.h"
#include "cuda/device.cuh"

// In the SIMT runner the same code serves the operators `dhn_simt::*` on CPU tensors; it is
// registered for every device, so that tensors of two devices reach the check of devices there,
// too.
#if defined(__CUDACC__)
#define DHN_CUDA_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(dhn, CUDA, m)
#else
#define DHN_CUDA_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(dhn_simt, CompositeExplicitAutograd, m)
#endif

// Runs BODY with `scalar_t` as the element type of network maps.
#define DHN_DISPATCH_MAPS(TYPE, NAME, ...)                                                \
  THO_DISPATCH_V2(TYPE, NAME, AT_WRAP(__VA_ARGS__), torch::headeronly::ScalarType::Float, \
                  torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16)

namespace dhn::cuda {

template <typename T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// The type in which kernels read network maps: their own, but float64 maps are converted.
inline ScalarType map_type(const Tensor& maps) {
  return maps.scalar_type() == ScalarType::Double ? ScalarType::Float : maps.scalar_type();
}
// The type in which they read two kinds of maps together: the type of both, or float32.
inline ScalarType map_type(const Tensor& heatmaps, const Tensor& tags) {
  return map_type(heatmaps) == map_type(tags) ? map_type(tags) : ScalarType::Float;
}

// As many blocks as the product of `counts`. Where this passes, each count, and the product of any
// of them, fits an int.
inline dim3 grid_of(IntHeaderOnlyArrayRef counts) {
  const std::int64_t most = checked_count("the batch", counts);
  STD_TORCH_CHECK(most <= 0x7fffffff, "the batch is too large for one launch: ", most, " blocks");
  std::int64_t blocks = 1;
  for (const std::int64_t count : counts) blocks *= count;
  return dim3(static_cast<unsigned>(blocks));
}

// While it lives, the tensor's device is the current one; launches go to that device's current
// stream.
class Launcher {
 public:
#if defined(__CUDACC__)
  explicit Launcher(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream_));
  }
  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                  Arguments... arguments) const {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // an empty batch
    kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream_)>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
#else
  explicit Launcher(const Tensor&) {}
  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                  Arguments... arguments) const {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    simt::launch(grid, block, [&] { kernel(arguments...); });
  }
#endif
};

}  // namespace dhn::cuda
