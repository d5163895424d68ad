// Every CUDA kernel and its host code, compiled for the SIMT runner: the operators dhn_simt::* on
// CPU tensors.
#include "../../csrc/cuda/aggregate_heatmaps.cu"
#include "../../csrc/cuda/group_tags.cu"
#include "../../csrc/cuda/heatmap_mse.cu"
#include "../../csrc/cuda/read_peaks.cu"
#include "../../csrc/cuda/refine_people.cu"
#include "../../csrc/cuda/render_heatmaps.cu"
#include "../../csrc/cuda/topk_peaks.cu"

extern "C" void simt_configure(int order, unsigned long seed, int poison, int planted) {
  simt::config.order = static_cast<simt::Order>(order);
  simt::config.seed = seed;
  simt::config.poison = poison;
  simt::config.planted = planted;
}
