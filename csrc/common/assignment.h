// Optimal rectangular assignment: shortest augmenting paths with dual variables (D. F. Crouse,
// "On implementing 2D rectangular assignment algorithms", 2016; the algorithm of scipy's
// linear_sum_assignment), for rows <= columns. Ties: a free column first, then the lowest.
#pragma once

#include "common/compat.h"

namespace dhn {

// What it costs to add a candidate to a person (step 4 of the published decode). `distance` is the
// norm of tag - mean tag, in float32; it is rounded half to even. A double keeps the scores beside
// the hundreds.
DHN_HD double grouping_cost(float distance, float score) {
  return static_cast<double>(round_half_even(distance)) * 100.0 - static_cast<double>(score);
}

// Working memory of one assignment of at most N rows and N columns.
template <int N>
struct Assignment {
  double row_dual[N], column_dual[N], path_cost[N];
  int column_of_row[N], row_of_column[N], path[N];
  bool row_done[N], column_done[N];
};

// Fills a.column_of_row[0..rows) with the assignment of least total cost; cost(i, j) must be
// finite.
template <typename Work, typename Cost>
DHN_HD void assign_rows(Work& a, int rows, int columns, const Cost& cost) {
  const double infinity = 1e300;
  for (int i = 0; i < rows; ++i) a.row_dual[i] = 0, a.column_of_row[i] = -1;
  for (int j = 0; j < columns; ++j) a.column_dual[j] = 0, a.row_of_column[j] = -1;

  for (int start = 0; start < rows; ++start) {
    for (int i = 0; i < rows; ++i) a.row_done[i] = false;
    for (int j = 0; j < columns; ++j) a.column_done[j] = false, a.path_cost[j] = infinity;
    double least = 0;
    int sink = -1;
    for (int i = start; sink < 0;) {
      a.row_done[i] = true;
      int best = -1;
      for (int j = 0; j < columns; ++j) {
        if (a.column_done[j]) continue;
        const double reduced = least + cost(i, j) - a.row_dual[i] - a.column_dual[j];
        if (reduced < a.path_cost[j]) a.path_cost[j] = reduced, a.path[j] = i;
        const bool tie_on_free = best >= 0 && a.path_cost[j] == a.path_cost[best] &&
                                 a.row_of_column[j] < 0 && a.row_of_column[best] >= 0;
        if (best < 0 || a.path_cost[j] < a.path_cost[best] || tie_on_free) best = j;
      }
      least = a.path_cost[best];
      a.column_done[best] = true;
      if (a.row_of_column[best] < 0) {
        sink = best;
      } else {
        i = a.row_of_column[best];
      }
    }

    a.row_dual[start] += least;
    for (int i = 0; i < rows; ++i) {
      if (a.row_done[i] && i != start) {
        a.row_dual[i] += least - a.path_cost[a.column_of_row[i]];
      }
    }
    for (int j = 0; j < columns; ++j) {
      if (a.column_done[j]) a.column_dual[j] -= least - a.path_cost[j];
    }
    for (int j = sink, i = -1; i != start;) {
      i = a.path[j];
      a.row_of_column[j] = i;
      const int next = a.column_of_row[i];
      a.column_of_row[i] = j;
      j = next;
    }
  }
}

}  // namespace dhn
