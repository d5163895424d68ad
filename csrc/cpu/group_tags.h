// Groups the candidates of one image into people (ops.cpp: group_tags).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/assignment.h"
#include "cpu/munkres.h"

namespace dhn {

struct GroupingSizes {
  int64_t J, K, T;
};

struct GroupingSettings {
  const std::vector<int64_t>& order;
  int64_t max_people;
  float tag_threshold, detection_threshold;
  bool munkres;
};

struct AssignmentWork {
  std::vector<double> row_dual, column_dual, path_cost;
  std::vector<int> column_of_row, row_of_column, path;
  std::vector<char> row_done, column_done;

  explicit AssignmentWork(size_t n)
      : row_dual(n),
        column_dual(n),
        path_cost(n),
        column_of_row(n),
        row_of_column(n),
        path(n),
        row_done(n),
        column_done(n) {}
};

// One image: candidates in, people out.
class Grouping {
 public:
  Grouping(const GroupingSizes& sizes, const GroupingSettings& settings)
      : sizes_(sizes),
        settings_(settings),
        work_(std::max(sizes.K, settings.max_people)),
        candidates_(sizes.K),
        person_of_(sizes.K) {}

  // scores [J, K], xy [J, K, 2], tags [J, K, T] -> people [count, J, 3 + T], until the next run.
  const std::vector<float>& run(const float* scores, const float* xy, const float* tags) {
    tag_sum_.clear();
    joints_.clear();
    people_.clear();
    for (const int64_t j : settings_.order) {
      const int64_t first = j * sizes_.K;
      const int found = select(scores + first, xy + first * 2, tags + first * sizes_.T);
      if (found == 0) continue;
      match(found, scores + first, tags + first * sizes_.T);
      for (int i = 0; i < found; ++i) {
        const int64_t k = first + candidates_[i];
        if (person_of_[i] < 0) person_of_[i] = start_person();
        add(person_of_[i], j, scores[k], xy + k * 2, tags + k * sizes_.T);
      }
    }
    return people_;
  }

  int64_t count() const { return static_cast<int64_t>(joints_.size()); }

 private:
  // Slots of one joint that take part, into candidates_.
  int select(const float* scores, const float* xy, const float* tags) {
    int found = 0;
    for (int64_t k = 0; k < sizes_.K; ++k) {
      // 0 times a number is 0 unless it is not finite; a sum of large ones could overflow.
      float zero = 0 * scores[k] + 0 * xy[2 * k] + 0 * xy[2 * k + 1];
      for (int64_t t = 0; t < sizes_.T; ++t) zero += 0 * tags[k * sizes_.T + t];
      if (scores[k] > settings_.detection_threshold && zero == 0) {
        candidates_[found++] = static_cast<int>(k);
      }
    }
    return found;
  }

  // person_of_[i]: whom candidate i joins, or -1 if it starts a person.
  void match(int found, const float* scores, const float* tags) {
    std::fill_n(person_of_.begin(), found, -1);
    const int people = static_cast<int>(std::min<int64_t>(joints_.size(), settings_.max_people));
    if (people == 0) return;
    distance_.resize(static_cast<size_t>(found) * people);
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

  // The costs, padded to a square as the official code and its package do: columns of 1e10, rows
  // of 0.
  template <typename Cost>
  void assign_by_munkres(int found, int people, const Cost& cost) {
    const int n = std::max(found, people);
    padded_costs_.assign(static_cast<size_t>(n) * n, 0);
    for (int i = 0; i < found; ++i) {
      for (int p = 0; p < n; ++p) {
        padded_costs_[i * n + p] = p < people ? std::clamp(cost(i, p), -1e15, 1e15) : 1e10;
      }
    }
    munkres_.assign(padded_costs_, n, column_of_row_);
  }

  // ||tag - the person's mean tag||
  float distance(const float* tag, int p) const {
    float sum = 0;
    for (int64_t t = 0; t < sizes_.T; ++t) {
      const float difference = tag[t] - finite_mean(tag_sum_[p * sizes_.T + t] / joints_[p]);
      sum += difference * difference;
    }
    return limited_distance(std::sqrt(sum));
  }

  int start_person() {
    tag_sum_.resize(tag_sum_.size() + sizes_.T, 0.0f);
    people_.resize(people_.size() + sizes_.J * (3 + sizes_.T), 0.0f);
    joints_.push_back(0.0f);
    return static_cast<int>(joints_.size()) - 1;
  }

  void add(int p, int64_t j, float score, const float* xy, const float* tag) {
    float* joint = people_.data() + (p * sizes_.J + j) * (3 + sizes_.T);
    joint[0] = xy[0];
    joint[1] = xy[1];
    joint[2] = score;
    joints_[p] += 1;
    for (int64_t t = 0; t < sizes_.T; ++t) {
      joint[3 + t] = tag[t];
      tag_sum_[p * sizes_.T + t] += tag[t];
    }
  }

  GroupingSizes sizes_;
  GroupingSettings settings_;
  AssignmentWork work_;
  std::vector<int> candidates_, person_of_;
  std::vector<float> distance_;  // [found, people] of one joint
  Munkres munkres_;
  std::vector<double> padded_costs_;
  std::vector<int> column_of_row_;
  std::vector<float> people_;   // [people, J, 3 + T]
  std::vector<float> tag_sum_;  // [people, T]
  std::vector<float> joints_;   // number of joints each person has
};

}  // namespace dhn
