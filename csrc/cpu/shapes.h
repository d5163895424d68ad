// The joints of one map as shapes (discs or squares), ready to be painted row by row.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/gaussian.h"
#include "cpu/vectorize.h"

namespace dhn {

// What one joint of one person covers: rows [top, bottom), columns [left, right). The factors along
// x and the squared offsets of its columns stand in the shared arrays of Shapes, from `columns` on.
template <typename scalar_t>
struct Shape {
  int top, bottom, left, right;
  scalar_t x, y;
  size_t columns;
};

template <typename scalar_t>
class Shapes {
 public:
  Shapes(const Gaussian<scalar_t>& gaussian, int height, int width)
      : gaussian_(gaussian), height_(height), width_(width) {}

  // Takes one joint of every person; `joint` is the first person's (x, y, v).
  void assign(const scalar_t* joint, int64_t people, int64_t person_stride) {
    all_.clear();
    offset2_.clear();
    factor_.clear();
    for (int64_t p = 0; p < people; ++p, joint += person_stride) {
      if (gaussian_counts(gaussian_, height_, width_, joint[0], joint[1], joint[2])) {
        add(joint[0], joint[1]);
      }
    }
  }

  const std::vector<Shape<scalar_t>>& all() const { return all_; }

  // row[u] = max(row[u], the shape's value there), for a map row v in [top, bottom).
  DHN_INLINE void paint_row(const Shape<scalar_t>& shape, int v, scalar_t* row) const {
    const scalar_t dy = gaussian_offset(gaussian_, v, shape.y);
    const scalar_t dy2 = dy * dy, factor_y = gaussian_factor(gaussian_, dy);
    const scalar_t limit =
        gaussian_.target == Target::disc ? gaussian_.tau * gaussian_.tau : scalar_t(INFINITY);
    const scalar_t* dx2 = offset2_.data() + shape.columns;
    const scalar_t* factor_x = factor_.data() + shape.columns;
    scalar_t* out = row + shape.left;
    const int count = shape.right - shape.left;
    for (int i = 0; i < count; ++i) {
      const scalar_t value = dx2[i] + dy2 <= limit ? factor_x[i] * factor_y : scalar_t(0);
      out[i] = max_of(out[i], value);
    }
  }

 private:
  void add(scalar_t x, scalar_t y) {
    Shape<scalar_t> shape{0, 0, 0, 0, x, y, factor_.size()};
    cover(x, width_, shape.left, shape.right);
    cover(y, height_, shape.top, shape.bottom);
    if (shape.left == shape.right || shape.top == shape.bottom) return;
    for (int u = shape.left; u < shape.right; ++u) {
      const scalar_t dx = gaussian_offset(gaussian_, u, x);
      offset2_.push_back(dx * dx);
      factor_.push_back(gaussian_factor(gaussian_, dx));
    }
    all_.push_back(shape);
  }

  // The map pixels [begin, end) of one axis within reach: estimated with a pixel to spare, then
  // trimmed by the offsets themselves, so that rounding decides nothing.
  void cover(scalar_t coordinate, int size, int& begin, int& end) const {
    const scalar_t reach = gaussian_reach(gaussian_);
    const scalar_t centre = coordinate / gaussian_.stride;
    const scalar_t radius =
        (gaussian_.target == Target::square ? reach : reach / gaussian_.stride) + 2;
    begin = static_cast<int>(std::clamp(centre - radius, scalar_t(0), scalar_t(size)));
    end = static_cast<int>(std::clamp(centre + radius, scalar_t(0), scalar_t(size)));
    const auto outside = [&](int index) {
      return std::fabs(gaussian_offset(gaussian_, index, coordinate)) > reach;
    };
    while (begin < end && outside(begin)) ++begin;
    while (begin < end && outside(end - 1)) --end;
  }

  Gaussian<scalar_t> gaussian_;
  int height_, width_;
  std::vector<Shape<scalar_t>> all_;
  std::vector<scalar_t> offset2_, factor_;
};

}  // namespace dhn
