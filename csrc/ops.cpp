// Schemas of every dhn operator: the contract that csrc/cpu and csrc/cuda implement.
//
// An operator has one file stem: render_heatmaps is csrc/cpu/render_heatmaps.cpp,
// csrc/cuda/render_heatmaps.{cuh,cu}, dhn.ops.render_heatmaps and
// dhn.ops.reference.render_heatmaps. checks.h says what its arguments must be on both devices;
// csrc/common holds the arithmetic that both need.
//
// Letters: B images, P people in annotations, M people found, J joints, h x w map, H x W network
// input, K candidates per joint, T tag dimensions. Continuous coordinates: the input spans
// [0, W] x [0, H]; input pixel (X, Y) has its centre at (X + .5, Y + .5); map pixel (u, v) of
// stride s lies at ((u + .5) s, (v + .5) s). Maps are float32, bfloat16 or float16 of any strides
// and are converted to float32 before anything is computed. Results are contiguous. No operator
// synchronises with the host: the shape of a result depends on shapes and integers alone
// (except for decode_poses, which runs on the CPU only).

#include <torch/csrc/stable/library.h>

#include "cpu/vectorize.h"
#include "source_hash.h"

STABLE_TORCH_LIBRARY(dhn, m) {
  // Training targets, several maps per call (common/gaussian.h has the formula).
  //   keypoints [B, P, J, 3] float32 or float64: x, y in input pixels, visible where v > 0.
  //     P may be 0.
  //   heights, widths, strides, sigmas, taus: one entry per map; stride in input pixels.
  //   target "disc": exp(-d^2 / sigma^2) where d <= tau, else 0; d, sigma, tau in input pixels;
  //     a joint outside the map still paints the part of its disc that falls inside.
  //   target "square": HigherHRNet's own target, sigma in map pixels, tau unused.
  //   -> per map [B, J, height, width], the dtype of keypoints: maximum over people, 0 elsewhere.
  m.def(
      "render_heatmaps(Tensor keypoints, int[] heights, int[] widths, float[] strides, "
      "float[] sigmas, float[] taus, str target) -> Tensor[]");

  // Masked mean squared error to the target that render_heatmaps would draw; no target in memory.
  //   prediction [B, J, h, w] float32, float64, bfloat16 or float16; the target as above.
  //   mask [B, h, w] or [B, 1 or J, h, w] of any dtype, or None (all ones): weight of a pixel; bool
  //     counts as 0 and 1.
  //   boxes [B, P, 4], x0, y0, x1, y1 in input pixels, or None: where joints of a person may be
  //     whose v is below 0 (nobody knows whether they are there). A pixel of such a joint's map
  //     whose centre lies in the box has weight 0, unless the target there is above 0.
  //   -> [B] float32 (float64 for float64 predictions):
  //      sum over j, y, x of mask * (prediction - target)^2, divided by J h w.
  m.def(
      "heatmap_mse(Tensor prediction, Tensor keypoints, Tensor? mask, float stride, float sigma, "
      "float tau, str target, Tensor? boxes=None) -> Tensor");
  //   grad [B]: gradient of the above's result.
  //   -> [B, J, h, w], dtype of prediction: grad[b] * 2 mask (prediction - target) / (J h w).
  m.def(
      "heatmap_mse_backward(Tensor grad, Tensor prediction, Tensor keypoints, Tensor? mask, "
      "float stride, float sigma, float tau, str target, Tensor? boxes=None) -> Tensor");

  // Decode, steps 1 to 3 (dhn/inference/decode.py has the steps): peaks of maps read at
  // height x width.
  //   heatmaps [B, J, h, w], upsampled on the fly (bilinear, align_corners=False;
  //   common/bilinear.h); with height = h and width = w they are taken as they stand. kernel: odd
  //   side of the window, clipped at the border. A pixel is a peak if it equals the maximum of its
  //   window and is greater than threshold (>= 0).
  //   -> scores [B, J, K] float32, highest first, equal scores lowest index first;
  //      indices [B, J, K] int64, Y * width + X. Unused slots: score 0, index 0.
  //   Where a map holds NaN or infinity all its scores are NaN, all its indices 0.
  m.def(
      "topk_peaks(Tensor heatmaps, int k, int kernel, int height, int width, float threshold) "
      "-> (Tensor scores, Tensor indices)");

  // Decode, step 5 and what grouping needs: where peaks lie and which tags stand there.
  //   heatmaps [B, J, h, w], tags [B, J, T, h, w], indices [B, J, K] as topk_peaks returns them.
  //   subpixel = false: x = X + .5 +- .25 towards the greater of the neighbours X - 1 and X + 1
  //     (clamped at the border; equal: -.25), y alike.
  //   subpixel = true: second-order fit of log heatmap at map resolution (common/subpixel.h).
  //   -> xy [B, J, K, 2] float32 in input pixels; tags [B, J, K, T] float32, bilinear at (X, Y).
  m.def(
      "read_peaks(Tensor heatmaps, Tensor tags, Tensor indices, int height, int width, "
      "bool subpixel) -> (Tensor xy, Tensor tags)");

  // Decode, steps 3 and 4: associative embedding by optimal assignment (common/assignment.h).
  //   scores [B, J, K], xy [B, J, K, 2], tags [B, J, K, T] float32. order: a permutation of 0..J-1.
  //   Candidates with score <= detection_threshold, or not finite, are dropped.
  //   munkres (CPU only): among assignments of equal cost the official code's (cpu/munkres.h).
  //   -> people [B, M = J K, J, 3 + T] float32: x, y, score and tags of each joint, in the order in
  //      which people were started; zeros for missing joints and from row counts[b] on.
  //      counts [B] int64.
  m.def(
      "group_tags(Tensor scores, Tensor xy, Tensor tags, int[] order, int max_people, "
      "float tag_threshold, float detection_threshold, bool munkres=False) "
      "-> (Tensor people, Tensor counts)");

  // Decode, step 7: a missing joint goes where score - round(|tag - person's mean tag|) is largest
  // over all input pixels (float32, half to even, lowest Y * width + X first) if the score there
  // is > 0; position as read_peaks gives it, score as read there.
  //   heatmaps [B, J, h, w], tags [B, J, T, h, w]; people [B, M, J, 3 + T] and counts [B] of
  //   group_tags.
  //   -> keypoints [B, M, J, 3] float32: x, y, score; zeros where missing and from counts[b] on.
  //   Where a map that had to be searched holds NaN or infinity, the score of that joint is NaN.
  m.def(
      "refine_people(Tensor heatmaps, Tensor tags, Tensor people, Tensor counts, int height, "
      "int width, bool subpixel) -> Tensor");

  // All of decode (CPU only): what topk_peaks, read_peaks, group_tags and, if `refine`,
  // refine_people give one after the other. Heatmaps are read one time fewer, and on a CPU starting
  // an operator costs as much as a step of it.
  //   -> per image keypoints [N, J, 3] float32: x, y, score, zeros where missing; grouped [N, J]
  //      bool: whether the joint was there before refinement; and scores [N]: mean over all J
  //      joints before refinement, missing ones as 0. finite [B] bool: whether every value that was
  //      looked at was finite.
  m.def(
      "decode_poses(Tensor heatmaps, Tensor tags, int height, int width, int[] order, "
      "int max_people, int kernel, float tag_threshold, float detection_threshold, bool refine, "
      "bool subpixel, bool munkres) -> (Tensor[] keypoints, Tensor[] grouped, Tensor[] scores, "
      "Tensor finite)");

  // Inference heatmaps of one image batch in one pass:
  //   one(q, f) = (mean(f) + upsample(mean(q))) / 2, bilinear to the size of f;
  //   result = one(quarter, half), or with flipped passes
  //   (that + mirror(one(quarter_flipped, half_flipped))) / 2, where mirror reverses x and takes
  //   channel flip[j] for joint j.
  //   quarter [B, J, h/2, w/2] (n maps), half [B, J, h, w] (n maps), the flipped lists alike or
  //   empty; flip: J indices. All of one dtype; n = 2 for DoubleHigherNet, 1 for HigherHRNet.
  //   -> [B, J, h, w] float32.
  m.def(
      "aggregate_heatmaps(Tensor[] quarter, Tensor[] half, Tensor[] quarter_flipped, "
      "Tensor[] half_flipped, int[] flip) -> Tensor");
}

// dhn/base/native.py compares it with the sources it finds, so that a stale library is refused.
extern "C" __attribute__((visibility("default"))) const char* dhn_source_hash() {
  return DHN_SOURCE_HASH;
}

// For `dhn info`: the instruction sets whose code is inside.
extern "C" __attribute__((visibility("default"))) const char* dhn_built_for() {
  return DHN_BUILT_FOR;
}
