#include "cpu/group_tags.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "checks.h"

namespace dhn {
namespace {

std::tuple<Tensor, Tensor> group_tags(Tensor scores, Tensor xy, Tensor tags,
                                      std::vector<int64_t> order, int64_t max_people,
                                      double tag_threshold, double detection_threshold,
                                      bool munkres) {
  check_group_tags(scores, xy, tags, order, max_people);
  const Tensor s = as_float32(scores), p = as_float32(xy), t = as_float32(tags);
  const int64_t B = s.size(0);
  const GroupingSizes sizes{s.size(1), s.size(2), t.size(3)};
  const GroupingSettings settings{order, max_people, static_cast<float>(tag_threshold),
                                  static_cast<float>(detection_threshold), munkres};
  Tensor people = torch::stable::new_zeros(s, {B, sizes.J * sizes.K, sizes.J, 3 + sizes.T});
  Tensor counts = torch::stable::new_empty(s, {B}, ScalarType::Long);
  const float* score = s.const_data_ptr<float>();
  const float* point = p.const_data_ptr<float>();
  const float* tag = t.const_data_ptr<float>();
  float* out = people.mutable_data_ptr<float>();
  int64_t* count = counts.mutable_data_ptr<int64_t>();

  const int64_t slots = sizes.J * sizes.K, person = sizes.J * (3 + sizes.T);
  torch::stable::parallel_for(0, B, 1, [&](int64_t begin, int64_t end) {
    Grouping grouping(sizes, settings);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * slots;
      const auto& found = grouping.run(score + at, point + at * 2, tag + at * sizes.T);
      std::copy(found.begin(), found.end(), out + at * person);
      count[b] = grouping.count();
    }
  });
  return {people, counts};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("group_tags", TORCH_BOX(&group_tags)); }

}  // namespace
}  // namespace dhn
