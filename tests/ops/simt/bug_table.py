"""The bugs of each kernel (bugs.py says how they are planted), and the bounds that have none."""

from simt.bugs import Bug

BEST = "cuda/best.cuh"
PEAKS = "cuda/topk_peaks.cuh"
READ_PEAKS = "cuda/read_peaks.cuh"
RENDER = "cuda/render_heatmaps.cuh"
MSE = "cuda/heatmap_mse.cuh"
AGGREGATE = "cuda/aggregate_heatmaps.cuh"
GROUP = "cuda/group_tags.cuh"
REFINE = "cuda/refine_people.cuh"
DEVICE = "cuda/device.cuh"
MAPS = "cuda/bilinear.cuh"
TAP = "common/bilinear.h"
FIT = "common/subpixel.h"

ALL_THAT_FIT = "grouping of all that fit"
WIDEST = "peaks in the widest window"
SHRUNK = "peaks of shrunk maps"
TOO_MANY = "refinement of more people than there are"
TILES = "refinement in many tiles"
AT_CORNERS = "fitting at corners"

# Every barrier of csrc/cuda is in here; test_simt.py counts them.
BARRIERS = [
    Bug(BEST, "storage_.count = 0;\n    `__syncthreads();`", "", "peaks", "thread"),
    Bug(BEST, "`__syncthreads_count(accepted)`", "storage_.count - count_", "peaks", "thread"),
    Bug(BEST, "min(count_, k_);\n    `__syncthreads();`", "", "peaks", "thread"),
    # A warp does not run in step by itself.
    Bug(BEST, "        `__syncthreads();`\n", "if (step > 32) __syncthreads();", "peaks", "thread"),
    Bug(PEAKS, "map.h, map.H);\n  `__syncthreads();`", "", "peaks", "thread"),
    Bug(PEAKS, "tile.taps_x[column]);\n  }\n  `__syncthreads();`", "", "peaks", "thread"),
    Bug(PEAKS, "= greatest;\n  }\n  `__syncthreads();`", "", "peaks", "thread"),
    Bug(PEAKS, "`__syncthreads_or(alive)`", "alive", "peaks", "divergence"),
    Bug(RENDER, "nearby.count = 0;\n  `__syncthreads();`", "", "targets", "thread"),
    Bug(RENDER, "= {x, y};\n    }\n  }\n  `__syncthreads();`", "", "targets", "thread"),
    Bug(RENDER, "u, v);\n    `__syncthreads();`", "", "targets of a crowd", "thread"),
    Bug(MSE, "at.v);\n    `__syncthreads();`", "", "loss of a crowd", "thread"),
    Bug(MSE, "= sum;\n  `__syncthreads();`", "", "loss", "thread"),
    Bug(AGGREGATE, "= sum * share;\n  }\n  `__syncthreads();`", "", "aggregation", "thread"),
    Bug(AGGREGATE, "`__syncthreads();`  // the next pass", "", "aggregation", "thread"),
    Bug(GROUP, "a.path_cost[j] = 1e300;\n    `__syncwarp();`", "", "grouping", "thread"),
    Bug(GROUP, "      }\n    }\n    `__syncwarp();`\n\n    for", "", "grouping", "thread"),
    Bug(GROUP, "least - a.path_cost[j];\n    }\n    `__syncwarp();`", "", "grouping", "thread"),
    Bug(GROUP, "j = next;\n      }\n    }\n    `__syncwarp();`", "", "grouping", "thread"),
    Bug(GROUP, "`__syncwarp();`\n    return found;", "", "grouping", "thread"),
    Bug(GROUP, "= p;\n    }\n    `__syncwarp();`", "", "grouping by people", "thread"),
    Bug(GROUP, "`__syncwarp();`\n    return count;", "", "grouping", "thread"),
    Bug(REFINE, "promising = 0;\n    }\n    `__syncthreads();`", "", "refinement", "thread"),
    Bug(REFINE, "`__syncthreads_or(poisoned)`", "poisoned", "refinement", "thread"),
    Bug(REFINE, "s_.queued = 0;\n    `__syncthreads();`", "", "refinement", "thread"),
    Bug(REFINE, "= tile;\n    }\n    `__syncthreads();`", "", "refinement", "thread"),
    Bug(REFINE, "(s_.queue[i]);\n    }\n    `__syncthreads();`", "", TILES, "thread"),
    Bug(REFINE, "sizes_.H);\n    `__syncthreads();`", "", "refinement", "thread"),
    Bug(REFINE, "(&s_.best, best);\n    `__syncthreads();`", "", "refinement", "thread"),
    Bug(REFINE, "`__syncthreads();`  // all are done", "", "refinement", "thread"),
]

BOUNDS = [
    # Best: the buffer of keys.
    Bug(BEST, "if (`count_ > kBestCapacity - kBestThreads`)", "count_ > kBestCapacity",
        "many peaks", "address"),
    Bug(BEST, "`i < size`;", "i <= size", "many peaks", "address"),
    Bug(BEST, "`i < size / 2`;", "i <= size / 2", "many peaks", "address"),
    Bug(BEST, "storage_.count = `min(count_, k_)`", "count_", "many peaks", "address"),
    Bug(BEST, "    count_ = `min(count_, k_)`", "count_", "many peaks", "address"),
    # topk_peaks.
    Bug(PEAKS, "`i < width * height`;", "i <= width * height", WIDEST, "address"),
    Bug(PEAKS, "`i < kPeakTileW * height`;", "i <= kPeakTileW * height", WIDEST, "address"),
    Bug(PEAKS, "`d <= 2 * radius`;", "d <= 2 * radius + 1", WIDEST, "address"),
    Bug(PEAKS, "`y < rows.end`", "y <= rows.end", "peaks", "address"),
    Bug(PEAKS, "`x >= columns.end`", "x > columns.end", "peaks of one tile", "address"),
    Bug(PEAKS, "`i < kPeakTileW * kPeakTileH`;", "i <= kPeakTileW * kPeakTileH", "peaks",
        "divergence"),
    Bug(PEAKS, "`x0 + column < W`", "true", "peaks", "values"),
    Bug(PEAKS, "`y0 + row < H`", "true", "peaks", "values"),
    Bug(PEAKS, "`d <= 2 * radius && peak`", "d <= 2 * radius + 1 && peak", WIDEST, "address"),
    Bug(PEAKS, "`i < k`; i += kBestThreads)\n", "i <= k", "peaks", "address"),
    Bug(PEAKS, "`i < count ? best[i] : 0`;", "best[i]", WIDEST, "values"),
    Bug(PEAKS, "`i < offered ? mine[i % strips * k + i / strips] : 0`",
        "mine[i % strips * k + i / strips]", "peaks", "address"),
    Bug(PEAKS, "`i < k`; i += kBestThreads) {", "i <= k", "peaks", "address"),
    Bug(PEAKS, "`i < count` &&", "true", WIDEST, "values"),
    # Maps between their pixels.
    Bug(MAPS, "`i < count`", "i <= count", WIDEST, "thread"),
    Bug(MAPS, "`max(0, min(first + i, out_size - 1))`", "max(0, first + i)", SHRUNK, "values"),
    Bug(MAPS, "`max(0, min(first + i, out_size - 1))`", "min(first + i, out_size - 1)",
        "peaks of one tile", "values"),
    Bug(MAPS, "if (`first > 0`)", "true", SHRUNK, "values"),
    Bug(MAPS, "if (`last < out_size`)", "true", SHRUNK, "values"),
    Bug(MAPS, "`max(bilinear_tap(last - 1, in_size, out_size).high + 1,\n"
        "                   bilinear_tap(last, in_size, out_size).low)`",
        "bilinear_tap(last - 1, in_size, out_size).high + 1", SHRUNK, "values"),
    Bug(TAP, "if (`low >= in_size - 1`)", "false", "peaks", "address"),
    Bug(TAP, "`numerator > uint32_t(out_size) ? numerator - out_size : 0u`", "numerator - out_size",
        "peaks", "values"),
    # read_peaks and the fit.
    Bug(READ_PEAKS, "`i >= candidates`", "false", "reading", "address"),
    Bug(READ_PEAKS, "`max(std::int64_t{0}, min(indices[i], last))`", "min(indices[i], last)",
        "fitting outside", "values"),
    Bug(READ_PEAKS, "`max(std::int64_t{0}, min(indices[i], last))`",
        "max(std::int64_t{0}, indices[i])", "reading outside", "values"),
    Bug(READ_PEAKS, "`max(X - 1, 0)`", "X - 1", "reading at corners", "values"),
    Bug(READ_PEAKS, "`min(X + 1, map.W - 1)`", "X + 1", "reading at corners", "values"),
    Bug(READ_PEAKS, "`max(Y - 1, 0)`", "Y - 1", "reading at corners", "values"),
    Bug(READ_PEAKS, "`min(Y + 1, map.H - 1)`", "Y + 1", "reading at corners", "values"),
    Bug(FIT, "`min_of(max_of(u + dx, 0), width - 1)`", "min_of(u + dx, width - 1)", AT_CORNERS,
        "address"),
    Bug(FIT, "`min_of(max_of(u + dx, 0), width - 1)`", "max_of(u + dx, 0)", AT_CORNERS, "address"),
    Bug(FIT, "`min_of(max_of(v + dy, 0), height - 1)`", "min_of(v + dy, height - 1)", AT_CORNERS,
        "address"),
    Bug(FIT, "`min_of(max_of(v + dy, 0), height - 1)`", "max_of(v + dy, 0)", AT_CORNERS, "address"),
    # Rows, four pixels at a time.
    Bug(DEVICE, "`u + 4 <= width`", "true", "targets", "thread"),
    Bug(DEVICE, "`reinterpret_cast<std::uintptr_t>(at) % sizeof(Quad<T>) == 0`", "true", "loss",
        "address"),
    Bug(DEVICE, "`u + k >= 0`", "true", "aggregation", "address"),
    Bug(DEVICE, "`u + k < width` ?", "true", "loss", "address"),
    Bug(DEVICE, "if (`u + k < width`)", "true", "gradient", "address"),
    # render_heatmaps and heatmap_mse.
    Bug(RENDER, "if (`p < P`)", "true", "targets", "address"),
    Bug(RENDER, "`i < nearby.count`", "i <= nearby.count", "targets of a crowd", "address"),
    Bug(RENDER, "`m + 1 < all.count`", "true", "targets", "address"),
    Bug(RENDER, "`v >= map.height`", "false", "targets", "address"),
    Bug(MSE, "inside = `at.v < inputs.height`", "true", "loss", "address"),
    Bug(MSE, "`inside ? errors[k] - value_at(least[k], inputs.rate) : 0`",
        "errors[k] - value_at(least[k], inputs.rate)", "loss", "values"),
    Bug(MSE, "`at.u + k < inputs.width`", "true", "loss", "values"),
    Bug(MSE, "if (`inside && inputs.mask`)", "inputs.mask != nullptr", "gradient", "address"),
    Bug(MSE, "`joint % inputs.mask_joints`", "joint", "gradient", "address"),
    Bug(MSE, "for (int p = 0; `p < inputs.P`;", "p <= inputs.P", "loss of unknown joints",
        "address"),
    Bug(MSE, "`i < parts`", "i <= parts", "loss", "address"),
    Bug(MSE, "if (`at.v >= inputs.height`)", "false", "gradient", "address"),
    # aggregate_heatmaps.
    Bug(AGGREGATE, "`low >= in_size - 1`", "false", "aggregation", "address"),
    Bug(AGGREGATE, "`min(kAggregateTileW, w - x0)`", "kAggregateTileW", "aggregation", "address"),
    Bug(AGGREGATE, "`i < span_w * span_h`", "i <= span_w * span_h", "aggregation", "address"),
    Bug(AGGREGATE, "if (`s < stages`)", "true", "aggregation", "address"),
    Bug(AGGREGATE, "if (`v < h`) {", "true", "aggregation", "address"),
    Bug(AGGREGATE, "if (`s >= stages`)", "false", "aggregation", "address"),
    Bug(AGGREGATE, "if (`u + k >= w`)", "false", "aggregation", "address"),
    Bug(AGGREGATE, "if (`v < h`) store4", "true", "aggregation", "address"),
    # group_tags.
    Bug(GROUP, "`i < rows`; i += 32) a.row_dual", "i <= rows", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`j < columns`; j += 32) a.column_dual", "j <= columns", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`i < rows`; i += 32) a.row_done", "i <= rows", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`j < columns`; j += 32) a.column_done", "j <= columns", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`j < columns`; j += 32) {  // a column", "j <= columns", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`i < rows`; i += 32) {\n", "i <= rows", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`j < columns`; j += 32) {\n", "j <= columns", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`min(count, settings_.max_people)`", "count", ALL_THAT_FIT, "address"),
    Bug(GROUP, "if (`k < settings_.K`)", "true", "grouping", "address"),
    Bug(GROUP, "`i < found`; i += 32)", "i <= found", ALL_THAT_FIT, "address"),
    Bug(GROUP, "`row < rows`", "row <= rows", ALL_THAT_FIT, "address"),
    Bug(GROUP, "starts = `i < found`", "true", "grouping of one joint", "values"),
    Bug(GROUP, "if (`i < found`)", "true", "grouping", "thread"),
    Bug(GROUP, "if (`p < settings_.max_people`)", "true", ALL_THAT_FIT, "address"),
    # refine_people.
    Bug(REFINE, "`warp >= warps`", "false", TILES, "address"),
    Bug(REFINE, "`static_cast<int>(min(counts[image], static_cast<std::int64_t>(s.M)))`;\n  for "
        "(int m = lane", "static_cast<int>(counts[image])", TOO_MANY, "address"),
    Bug(REFINE, "`m < count`; m += 32", "m <= count", "refinement", "address"),
    Bug(REFINE, "`map < s.T`", "map <= s.T", "refinement", "address"),
    Bug(REFINE, "`i < pixels`", "i < pixels + span_w", "refinement", "address"),
    Bug(REFINE, "`tile < sizes_.tiles`;", "tile <= sizes_.tiles", "refinement", "address"),
    Bug(REFINE, "`tile < sizes_.tiles` &&", "true", "refinement", "address"),
    Bug(REFINE, "`i < s_.queued`", "i <= s_.queued", TILES, "address"),
    Bug(REFINE, "`i < width * height`", "i <= width * height", "refinement", "address"),
    Bug(REFINE, "`t >= s.T`", "false", "refinement", "address"),
    Bug(REFINE, "`static_cast<int>(min(counts[image], static_cast<std::int64_t>(s.M)))`;\n  for "
        "(int m = blockIdx.x", "static_cast<int>(counts[image])", TOO_MANY, "address"),
    Bug(REFINE, "`m < count`; m += kRefineSlots", "m <= count", "refinement", "address"),
    Bug(REFINE, "if (`threadIdx.x < 3`)", "threadIdx.x <= 3", "refinement", "address"),
]  # fmt: skip

BUGS = [*BARRIERS, *BOUNDS]

# Bounds without a bug, as (file, text, why nothing could show it).
UNSEEN = [
    (DEVICE, "u >= 0 && u + 4 <= width", "four pixels that begin left of a row lie in the row "
        "before; only mirrored reads begin there, and they ignore these pixels"),
    (PEAKS, "t < tiles_x * tiles_y", "a tile below the map repeats the last row and has no peaks"),
    (PEAKS, "first < offered", "a further round offers nothing"),
    (RENDER, "min(x0 + kTileW, width)", "it spares people who touch only pixels beyond the map"),
    (RENDER, "min(y0 + kTileH, height)", "as the one before"),
    (RENDER, "p0 < P", "a further round finds no people"),
    (MSE, "p0 < inputs.P", "a further round finds no people"),
    (MSE, "inside && inputs.boxes", "below the map there is no error to leave out"),
    (GROUP, "base < settings_.K", "a further round finds no candidates"),
    (GROUP, "base < found", "a further round finds no candidates"),
    (REFINE, "min(left + kRefineTile, s.W)", "it spares pixels that repeat the border's and lose "
        "to it, having a higher index"),
    (REFINE, "min(top + kRefineTile, s.H)", "as the one before"),
    (REFINE, "base < sizes_.tiles", "a further round queues no tiles"),
]  # fmt: skip
