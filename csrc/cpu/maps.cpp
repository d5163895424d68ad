#include "cpu/maps.h"

namespace dhn {
namespace {

// At twice the resolution output pixels 2u + 1 and 2u + 2 read map pixels u and u + 1; row[0] is
// the first such u, out[0] its output pixel 2u + 1. Without taps the compiler vectorizes the loop.
DHN_CLONES void stretch_twice(const float* row, int pairs, float* __restrict out) {
  for (int u = 0; u < pairs; ++u) {
    out[2 * u] = blend(row[u], row[u + 1], 0.25f);
    out[2 * u + 1] = blend(row[u], row[u + 1], 0.75f);
  }
}

// Rows of `width` values: lines [lines, width] -> out [rows, width], `stride` apart.
DHN_CLONES void blend_rows(const float* lines, int width, const Tap* rows, int count,
                           float* __restrict out, int stride) {
  const int first = rows->low;
  for (const Tap* row = rows; row < rows + count; ++row, out += stride) {
    blend_lines(lines + size_t(row->low - first) * width, lines + size_t(row->high - first) * width,
                row->weight, width, out);
  }
}

}  // namespace

void stretch(const Grid& grid, const float* row, int left, int right, float* out) {
  int X = left;
  const auto single = [&] {
    const Tap& tap = grid.columns[X];
    out[X - left] = blend(row[tap.low], row[tap.high], tap.weight);
    ++X;
  };
  if (grid.W == 2 * grid.w) {
    if (X % 2 == 0) single();
    const int pairs = std::min(right - X, grid.W - 1 - X) / 2;
    stretch_twice(row + X / 2, pairs, out + X - left);
    X += 2 * pairs;
  }
  while (X < right) single();
}

void BlockReader::read(const float* map, const Block& block, float* out, int stride) {
  const int width = block.width(), first = grid_.rows[block.top].low;
  const int lines = grid_.rows[block.bottom - 1].high - first + 1;
  lines_.resize(size_t(lines) * width);
  for (int line = 0; line < lines; ++line) {
    stretch(grid_, map + size_t(first + line) * grid_.w, block.left, block.right,
            lines_.data() + size_t(line) * width);
  }
  blend_rows(lines_.data(), width, grid_.rows.data() + block.top, block.height(), out, stride);
}

}  // namespace dhn
