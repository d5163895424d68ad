// Every CUDA kernel and its host code, compiled for the SIMT runner: the operators dhn_simt::* on
// CPU tensors. csrc, or the copy with planted bugs, is on the include path.
#include "cuda/aggregate_heatmaps.cu"
#include "cuda/group_tags.cu"
#include "cuda/heatmap_mse.cu"
#include "cuda/read_peaks.cu"
#include "cuda/refine_people.cu"
#include "cuda/render_heatmaps.cu"
#include "cuda/topk_peaks.cu"

extern "C" void simt_configure(int order, unsigned long seed, int poison, int planted) {
  simt::config.order = static_cast<simt::Order>(order);
  simt::config.seed = seed;
  simt::config.poison = poison;
  simt::config.planted = planted;
}
