// Munkres' assignment in the very order in which the Python package `munkres` 1.1.4 searches. The
// official HigherHRNet code calls it; rounded tag distances make many totals equal, and which of
// the equal assignments comes out depends on that order. common/assignment.h is faster.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

namespace dhn {

class Munkres {
 public:
  // Fills column_of_row[0..n) with an assignment of least total cost. cost [n, n], row by row,
  // finite and below 1e18 in magnitude; it is overwritten.
  void assign(std::vector<double>& cost, int n, std::vector<int>& column_of_row) {
    n_ = n;
    cost_ = cost.data();
    star_of_row_.assign(n, -1);
    star_of_column_.assign(n, -1);
    subtract_row_minima();
    star_zeros();
    while (cover_starred_columns() < n) augment(find_unstarred_prime());
    column_of_row = star_of_row_;
  }

 private:
  double& at(int row, int column) { return cost_[row * n_ + column]; }

  bool open_zero(int row, int column) {
    return at(row, column) == 0 && !row_covered_[row] && !column_covered_[column];
  }

  void star(int row, int column) {
    star_of_row_[row] = column;
    star_of_column_[column] = row;
  }

  void subtract_row_minima() {
    for (int i = 0; i < n_; ++i) {
      double* row = cost_ + i * n_;
      const double least = *std::min_element(row, row + n_);
      for (int j = 0; j < n_; ++j) row[j] -= least;
    }
  }

  void star_zeros() {
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < n_ && star_of_row_[i] < 0; ++j) {
        if (at(i, j) == 0 && star_of_column_[j] < 0) star(i, j);
      }
    }
  }

  // Covers exactly these columns and forgets the primes; returns how many columns are covered.
  int cover_starred_columns() {
    row_covered_.assign(n_, false);
    prime_of_row_.assign(n_, -1);
    column_covered_.resize(n_);
    for (int j = 0; j < n_; ++j) column_covered_[j] = star_of_column_[j] >= 0;
    return static_cast<int>(std::count(column_covered_.begin(), column_covered_.end(), true));
  }

  // Primes open zeros, making new ones where there are none, until one lies in a row without a
  // star; returns that row.
  int find_unstarred_prime() {
    for (int row = 0, column = 0;;) {
      if (!next_open_zero(row, column)) {
        make_zero();
        row = column = 0;
        continue;
      }
      prime_of_row_[row] = column;
      if (star_of_row_[row] < 0) return row;
      column = star_of_row_[row];
      row_covered_[row] = true;
      column_covered_[column] = false;
    }
  }

  // Finds the last open zero, counting cyclically from `column`, of the first row that has one,
  // counting cyclically from `row`.
  bool next_open_zero(int& row, int& column) {
    for (int di = 0; di < n_; ++di) {
      const int i = (row + di) % n_;
      if (row_covered_[i]) continue;
      for (int dj = n_ - 1; dj >= 0; --dj) {
        const int j = (column + dj) % n_;
        if (open_zero(i, j)) {
          row = i, column = j;
          return true;
        }
      }
    }
    return false;
  }

  void make_zero() {
    double least = std::numeric_limits<double>::max();
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < n_; ++j) {
        if (!row_covered_[i] && !column_covered_[j]) least = std::min(least, at(i, j));
      }
    }
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < n_; ++j) {
        // Both where both apply: rounding is part of the order.
        if (row_covered_[i]) at(i, j) += least;
        if (!column_covered_[j]) at(i, j) -= least;
      }
    }
  }

  // Turns primes into stars along the alternating path from the prime of `row`.
  void augment(int row) {
    while (row >= 0) {
      const int column = prime_of_row_[row], previous = star_of_column_[column];
      star(row, column);
      row = previous;
    }
  }

  int n_ = 0;
  double* cost_ = nullptr;
  std::vector<int> star_of_row_, star_of_column_, prime_of_row_;
  std::vector<char> row_covered_, column_covered_;
};

}  // namespace dhn
