#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "assignment.h"
#include "checks.h"
#include "munkres.h"

namespace dhn {
namespace {

struct Sizes {
  int64_t J, K, T;
};

struct Settings {
  const std::vector<int64_t>& order;
  int64_t max_people;
  float tag_threshold, detection_threshold;
  bool munkres;
};

struct Work {
  std::vector<double> row_dual, column_dual, path_cost;
  std::vector<int> column_of_row, row_of_column, path;
  std::vector<char> row_done, column_done;

  explicit Work(size_t n)
      : row_dual(n),
        column_dual(n),
        path_cost(n),
        column_of_row(n),
        row_of_column(n),
        path(n),
        row_done(n),
        column_done(n) {}
};

// One picture: candidates in, people out.
class Grouping {
 public:
  Grouping(const Sizes& sizes, const Settings& settings)
      : sizes_(sizes),
        settings_(settings),
        work_(std::max(sizes.K, settings.max_people)),
        candidates_(sizes.K),
        person_of_(sizes.K),
        distance_(sizes.K * settings.max_people) {}

  // scores [J, K], xy [J, K, 2], tags [J, K, T] -> people [J K, J, 3 + T], zero before; their
  // number.
  int64_t run(const float* scores, const float* xy, const float* tags, float* people) {
    tag_sum_.clear();
    joints_.clear();
    for (const int64_t j : settings_.order) {
      const int64_t first = j * sizes_.K;
      const int found = select(scores + first, xy + first * 2, tags + first * sizes_.T);
      if (found == 0) continue;
      match(found, scores + first, tags + first * sizes_.T);
      for (int i = 0; i < found; ++i) {
        const int64_t k = first + candidates_[i];
        if (person_of_[i] < 0) person_of_[i] = found_person();
        add(person_of_[i], j, scores[k], xy + k * 2, tags + k * sizes_.T, people);
      }
    }
    return static_cast<int64_t>(joints_.size());
  }

 private:
  // Slots of one joint that take part, into candidates_.
  int select(const float* scores, const float* xy, const float* tags) {
    int found = 0;
    for (int64_t k = 0; k < sizes_.K; ++k) {
      float watch = scores[k] + xy[2 * k] + xy[2 * k + 1];
      for (int64_t t = 0; t < sizes_.T; ++t) watch += tags[k * sizes_.T + t];
      if (scores[k] > settings_.detection_threshold && std::isfinite(watch)) {
        candidates_[found++] = static_cast<int>(k);
      }
    }
    return found;
  }

  // person_of_[i]: whom candidate i joins, or -1 if it founds a person.
  void match(int found, const float* scores, const float* tags) {
    std::fill_n(person_of_.begin(), found, -1);
    const int people = static_cast<int>(std::min<int64_t>(joints_.size(), settings_.max_people));
    if (people == 0) return;
    for (int i = 0; i < found; ++i) {
      for (int p = 0; p < people; ++p) {
        distance_[i * people + p] = distance(tags + candidates_[i] * sizes_.T, p);
      }
    }
    const auto cost = [&](int i, int p) {
      return grouping_cost(distance_[i * people + p], scores[candidates_[i]]);
    };
    const auto join = [&](int i, int p) {
      if (distance_[i * people + p] < settings_.tag_threshold) person_of_[i] = p;
    };
    if (settings_.munkres) {
      assign_by_munkres(found, people, cost);
      for (int i = 0; i < found; ++i) {
        if (column_of_row_[i] < people) join(i, column_of_row_[i]);
      }
    } else if (found <= people) {
      assign_rows(work_, found, people, cost);
      for (int i = 0; i < found; ++i) join(i, work_.column_of_row[i]);
    } else {
      assign_rows(work_, people, found, [&](int p, int i) { return cost(i, p); });
      for (int p = 0; p < people; ++p) join(work_.column_of_row[p], p);
    }
  }

  // Square as the official code and its package make it: columns of 1e10, rows of 0.
  template <typename Cost>
  void assign_by_munkres(int found, int people, const Cost& cost) {
    const int n = std::max(found, people);
    square_.assign(static_cast<size_t>(n) * n, 0);
    for (int i = 0; i < found; ++i) {
      for (int p = 0; p < n; ++p) {
        square_[i * n + p] = p < people ? std::min(cost(i, p), 1e15) : 1e10;
      }
    }
    munkres_.assign(square_, n, column_of_row_);
  }

  // ||tag - the person's mean tag||
  float distance(const float* tag, int p) const {
    float sum = 0;
    for (int64_t t = 0; t < sizes_.T; ++t) {
      const float difference = tag[t] - tag_sum_[p * sizes_.T + t] / joints_[p];
      sum += difference * difference;
    }
    return std::sqrt(sum);
  }

  int found_person() {
    tag_sum_.resize(tag_sum_.size() + sizes_.T, 0.0f);
    joints_.push_back(0.0f);
    return static_cast<int>(joints_.size()) - 1;
  }

  void add(int p, int64_t j, float score, const float* xy, const float* tag, float* people) {
    float* joint = people + (p * sizes_.J + j) * (3 + sizes_.T);
    joint[0] = xy[0];
    joint[1] = xy[1];
    joint[2] = score;
    joints_[p] += 1;
    for (int64_t t = 0; t < sizes_.T; ++t) {
      joint[3 + t] = tag[t];
      tag_sum_[p * sizes_.T + t] += tag[t];
    }
  }

  Sizes sizes_;
  Settings settings_;
  Work work_;
  std::vector<int> candidates_, person_of_;
  std::vector<float> distance_;
  Munkres munkres_;
  std::vector<double> square_;
  std::vector<int> column_of_row_;
  std::vector<float> tag_sum_;  // [people, T]
  std::vector<float> joints_;   // number of joints each person has
};

std::tuple<Tensor, Tensor> group_tags(Tensor scores, Tensor xy, Tensor tags,
                                      std::vector<int64_t> order, int64_t max_people,
                                      double tag_threshold, double detection_threshold,
                                      bool munkres) {
  check_candidates(scores, xy, tags, order, max_people);
  const Tensor s = as_float32(scores), p = as_float32(xy), t = as_float32(tags);
  const int64_t B = s.size(0);
  const Sizes sizes{s.size(1), s.size(2), t.size(3)};
  const Settings settings{order, max_people, static_cast<float>(tag_threshold),
                          static_cast<float>(detection_threshold), munkres};
  Tensor people = torch::stable::new_zeros(s, {B, sizes.J * sizes.K, sizes.J, 3 + sizes.T});
  Tensor counts = torch::stable::new_empty(s, {B}, ScalarType::Long);
  const float* score = s.const_data_ptr<float>();
  const float* point = p.const_data_ptr<float>();
  const float* tag = t.const_data_ptr<float>();
  float* out = people.mutable_data_ptr<float>();
  int64_t* count = counts.mutable_data_ptr<int64_t>();

  const int64_t slots = sizes.J * sizes.K;
  torch::stable::parallel_for(0, B, 1, [&](int64_t begin, int64_t end) {
    Grouping grouping(sizes, settings);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * slots;
      count[b] = grouping.run(score + at, point + at * 2, tag + at * sizes.T,
                              out + at * sizes.J * (3 + sizes.T));
    }
  });
  return {people, counts};
}

STABLE_TORCH_LIBRARY_IMPL(dhn, CPU, m) { m.impl("group_tags", TORCH_BOX(&group_tags)); }

}  // namespace
}  // namespace dhn
