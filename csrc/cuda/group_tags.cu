#include <tuple>
#include <vector>

#include "cuda/group_tags.cuh"
#include "cuda/launch.h"

namespace dhn::cuda {
namespace {

std::tuple<Tensor, Tensor> group_tags(const Tensor& scores, const Tensor& xy, const Tensor& tags,
                                      std::vector<std::int64_t> order, std::int64_t max_people,
                                      double tag_threshold, double detection_threshold,
                                      bool munkres) {
  check_group_tags(scores, xy, tags, order, max_people);
  const std::int64_t B = scores.size(0), J = scores.size(1), K = scores.size(2), T = tags.size(3);
  STD_TORCH_CHECK(K <= kMaxGroup && max_people <= kMaxGroup && T <= kMaxTagDims && J <= kMaxOrder,
                  "group_tags on CUDA takes up to ", kMaxGroup, " candidates and people, ",
                  kMaxTagDims, " tag dimensions and ", kMaxOrder, " joints");
  STD_TORCH_CHECK(!munkres, "group_tags by Munkres' algorithm is for the CPU");
  const Tensor s = as_float32(scores), p = as_float32(xy), t = as_float32(tags);
  GroupSettings settings{{},
                         static_cast<int>(J),
                         static_cast<int>(K),
                         static_cast<int>(T),
                         static_cast<int>(max_people),
                         static_cast<float>(tag_threshold),
                         static_cast<float>(detection_threshold)};
  for (std::int64_t n = 0; n < J; ++n) {
    settings.order[n] = static_cast<unsigned char>(order[n]);
  }
  const Launcher launch(s);
  Tensor people = torch::stable::new_zeros(s, {B, J * K, J, 3 + T});
  Tensor counts = torch::stable::new_empty(s, {B}, ScalarType::Long);
  launch(group_tags_kernel, grid_of({B}), dim3(32), s.const_data_ptr<float>(),
         p.const_data_ptr<float>(), t.const_data_ptr<float>(), settings,
         people.mutable_data_ptr<float>(), counts.mutable_data_ptr<std::int64_t>());
  return {people, counts};
}

}  // namespace
}  // namespace dhn::cuda

DHN_CUDA_KERNELS(m) { m.impl("group_tags", TORCH_BOX(&dhn::cuda::group_tags)); }
