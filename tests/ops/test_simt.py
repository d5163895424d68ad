"""The CUDA kernels, run on the CPU by the SIMT runner in tests/ops/simt, and on a GPU where one is.

Values are compared with dhn.ops.reference. The sanitizers look for races and for accesses out of
bounds; so that they are known to find them, each barrier and each bound of the kernels is also left
out, in a copy, and that must be caught.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from dhn.ops import reference
from locks import built_once, shared_folder
from simt import harness
from simt.bug_table import BUGS, UNSEEN
from simt.bugs import BARRIER, Bug, plant
from simt.cases import cases

needs_gcc = pytest.mark.skipif(not harness.RUNS_HERE, reason=harness.NEEDS)
MAP_TYPES = [torch.float32, torch.bfloat16, torch.float16]

# What each catcher says of a bug.
REPORTS = {
    "address": ("AddressSanitizer", "runtime error"),
    "thread": ("ThreadSanitizer",),
    "divergence": ("divergent __syncthreads", "divergence in block"),
    "values": ("other values",),
}


@pytest.fixture(scope="session")
def libraries() -> dict[str, str]:
    """All three flavours of the library, compiled side by side."""
    with ThreadPoolExecutor() as pool:
        built = pool.map(harness.build, harness.FLAGS)
        return {flavour: str(path) for flavour, path in zip(harness.FLAGS, built, strict=True)}


class Sanitized(NamedTuple):
    """What a sanitizer found."""

    bugs: dict[str, dict]  # by number, `status` (0: not seen) and `log` of each
    status: int  # of the cases without a bug
    log: str  # ends with the name of a case and what was found in it


def run_sanitized(flavour: str, library: str, *bugs: str, option: str = "") -> Sanitized:
    """Runs these bugs, then every case without one, which ends where something is found."""
    runtime = subprocess.run(
        ["g++", f"-print-file-name={harness.PRELOADS[flavour]}"], capture_output=True, text=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": f"detect_leaks=0:{option}",  # Python's own
        "TSAN_OPTIONS": f"halt_on_error=1:{option}",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, str(harness.HERE / "harness.py"), "run", library, *bugs],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.stdout, run.stderr
    return Sanitized(json.loads(run.stdout), run.returncode, run.stderr)


@pytest.fixture(scope="session")
def sanitized(libraries, request) -> dict[str, Sanitized]:
    """Every bug and every case under its sanitizer, the two of them side by side."""

    def run(flavour: str) -> Sanitized:
        bugs = [str(n) for n, bug in enumerate(BUGS, 1) if bug.flavour == flavour]
        # Looking up the functions' names takes half a second for each bug's report.
        return run_sanitized(flavour, libraries[flavour], *bugs, option="symbolize=0")

    def write(path: Path) -> None:
        with ThreadPoolExecutor() as pool:
            found = zip(harness.PRELOADS, pool.map(run, harness.PRELOADS), strict=True)
        path.write_text(json.dumps({flavour: one._asdict() for flavour, one in found}))

    path = built_once(shared_folder(request) / "sanitized.json", write)
    return {flavour: Sanitized(**one) for flavour, one in json.loads(path.read_text()).items()}


@needs_gcc
@pytest.mark.parametrize("flavour", [pytest.param("address", marks=pytest.mark.slow), "thread"])
def test_sanitizers_find_nothing(sanitized, libraries, flavour):
    if sanitized[flavour].status != 0:  # once more, for the names
        pytest.fail(run_sanitized(flavour, libraries[flavour]).log[-6000:])


@needs_gcc
@pytest.mark.parametrize("n", range(1, len(BUGS) + 1), ids=lambda n: f"{n}-{BUGS[n - 1].file}")
def test_bugs_are_caught(sanitized, n):
    bug = BUGS[n - 1]
    outcome = sanitized[bug.flavour].bugs[str(n)]
    assert outcome["status"] != 0, bug
    assert any(report in outcome["log"] for report in REPORTS[bug.caught_by]), outcome["log"]


def test_every_barrier_has_a_bug():
    missing = []
    for path in sorted(harness.CSRC.glob("c*/*")):
        source, file = path.read_text(), path.relative_to(harness.CSRC).as_posix()
        spans = [bug.span(source) for bug in BUGS if bug.file == file]
        for barrier in BARRIER.finditer(source):
            if not any(begin <= barrier.start() < end for begin, end in spans):
                missing.append(f"{file}:{source.count(chr(10), 0, barrier.start()) + 1}")
    assert not missing


def test_bounds_that_nothing_shows_are_there():
    for file, text, _ in UNSEEN:
        assert (harness.CSRC / file).read_text().count(text) == 1, (file, text)


def test_a_bug_that_does_not_fit_is_refused(tmp_path):
    def bug(text: str) -> Bug:
        return Bug("cuda/best.cuh", text, "", "peaks", "thread")

    for text in ("no `such();` text", "`__syncthreads();`"):
        with pytest.raises(ValueError, match="times, not once"):
            plant(harness.CSRC, tmp_path / text[:3], [bug(text)])
    around_another = bug("{\n    `if (threadIdx.x == 0) storage_.count = 0;\n    __syncthreads();`")
    with pytest.raises(ValueError, match="overlap"):
        plant(harness.CSRC, tmp_path / "overlap", [around_another, *BUGS])


class OnGpu:
    """torch.ops.dhn on CUDA tensors, for arguments and results on the CPU."""

    def __getattr__(self, name: str):
        def run(*arguments):
            arguments = tree_map_only(Tensor, Tensor.cuda, arguments)
            return tree_map_only(Tensor, Tensor.cpu, getattr(torch.ops.dhn, name)(*arguments))

        return run


@pytest.fixture(
    params=[
        *(pytest.param(order, marks=needs_gcc) for order in ("forward", "random:1", "random:2")),
        pytest.param("gpu", marks=pytest.mark.gpu),
    ]
)
def ops(request):
    """The operators: in the SIMT runner, threads taking turns in several orders, or on the GPU."""
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, which is not here")
        return OnGpu()
    order, _, seed = request.param.partition(":")
    simt = request.getfixturevalue("simt")  # not on a GPU machine: it needs g++ and time
    simt.configure(order, int(seed or 1))
    return simt.ops


def people(B: int, P: int, J: int, extent: float, dtype=torch.float32) -> Tensor:
    """Keypoints [B, P, J, 3], some beyond the image, some not labelled."""
    xy = torch.rand(B, P, J, 2, dtype=dtype) * extent * 1.2 - extent * 0.1
    return torch.cat([xy, (torch.rand(B, P, J, 1) > 0.2).to(dtype)], -1)


@pytest.mark.parametrize(
    ("B", "P", "J", "h", "w"),
    [(1, 1, 1, 1, 1), (2, 0, 2, 9, 7), (2, 6, 3, 37, 45), (1, 300, 1, 20, 130)],
)
@pytest.mark.parametrize("target", ["disc", "square"])
def test_targets(ops, B, P, J, h, w, target):
    torch.manual_seed(P)
    taus = [10.0, 7.0]
    sigma, units = (2.0, "heatmap") if target == "square" else (7.0, "input")
    keypoints = people(B, P, J, 4 * max(h, w))
    for points in (keypoints, keypoints.double()):
        fine, coarse = ops.render_heatmaps(
            points, [h, h // 2 + 1], [w, w // 2 + 1], [4.0, 8.0], [sigma] * 2, taus, target
        )
        for got, stride, tau in ((fine, 4.0, taus[0]), (coarse, 8.0, taus[1])):
            want = reference.render_heatmaps(
                keypoints.double(), got.shape[2:], stride, sigma, tau, units, target
            )
            torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [*MAP_TYPES, torch.float64])
@pytest.mark.parametrize(
    ("B", "P", "J", "h", "w"), [(1, 0, 1, 1, 1), (2, 6, 3, 37, 45), (1, 300, 1, 20, 130)]
)
@pytest.mark.parametrize("weights", [None, "bool", "float"])
def test_target_free_loss(ops, B, P, J, h, w, weights, dtype):
    torch.manual_seed(P)
    mask = {None: None, "bool": torch.rand(B, h, w) > 0.5, "float": torch.rand(B, h, w)}[weights]
    prediction, keypoints = torch.randn(B, J, h, w).to(dtype), people(B, P, J, 4 * max(h, w))
    grad = torch.rand(B) * J * h * w  # gradients of about 1: float16 has no small ones
    exact = prediction.double().requires_grad_()
    want = reference.heatmap_mse(exact, keypoints.double(), mask, 4.0, 7.0, 10.0)
    want.backward(grad.double())
    if dtype == torch.float64:
        keypoints = keypoints.double()
    loss = ops.heatmap_mse(prediction, keypoints, mask, 4.0, 7.0, 10.0, "disc")
    torch.testing.assert_close(loss.double(), want.detach(), rtol=1e-6, atol=1e-7)
    gradient = ops.heatmap_mse_backward(grad, prediction, keypoints, mask, 4.0, 7.0, 10.0, "disc")
    assert gradient.dtype == dtype
    rounding = torch.finfo(dtype).eps if dtype in MAP_TYPES else 1e-6
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=2 * rounding, atol=1e-5)


@pytest.mark.parametrize("dtype", [*MAP_TYPES, torch.float64])
@pytest.mark.parametrize(
    ("B", "P", "J", "h", "w"), [(1, 0, 1, 1, 1), (2, 6, 3, 37, 45), (1, 300, 2, 20, 130)]
)
@pytest.mark.parametrize("masks", [None, 1, "each"])
def test_target_free_loss_of_unknown_joints(ops, B, P, J, h, w, masks, dtype):
    torch.manual_seed(P)
    mask = None if masks is None else torch.rand(B, 1 if masks == 1 else J, h, w)
    prediction, keypoints = torch.randn(B, J, h, w).to(dtype), people(B, P, J, 4 * max(h, w))
    keypoints[..., 2] = torch.randint(-1, 2, (B, P, J))
    corners = torch.rand(B, P, 2, 2) * 2 * max(h, w)
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    grad = torch.rand(B) * J * h * w
    exact, settings = prediction.double().requires_grad_(), (4.0, 7.0, 10.0)
    want = reference.heatmap_mse(exact, keypoints.double(), mask, *settings, boxes=boxes.double())
    want.backward(grad.double())
    if dtype == torch.float64:
        keypoints, boxes = keypoints.double(), boxes.double()
    rest = (keypoints, mask, *settings, "disc", boxes)
    loss = ops.heatmap_mse(prediction, *rest)
    torch.testing.assert_close(loss.double(), want.detach(), rtol=1e-6, atol=1e-7)
    gradient = ops.heatmap_mse_backward(grad, prediction, *rest)
    rounding = torch.finfo(dtype).eps if dtype in MAP_TYPES else 1e-6
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=2 * rounding, atol=1e-5)


@pytest.mark.parametrize("dtype", MAP_TYPES)
@pytest.mark.parametrize(
    ("h", "w", "size", "k", "kernel"),
    [
        (1, 1, (1, 1), 3, 5),
        (37, 45, (37, 45), 30, 5),
        (17, 33, (34, 66), 30, 5),
        (33, 20, (75, 91), 5, 3),
        (50, 60, (33, 41), 100, 1),
        (3, 100, (6, 200), 7, 15),
    ],
)
def test_peaks(ops, h, w, size, k, kernel, dtype):
    """The very same peaks, ties included: values are compared bit by bit."""
    torch.manual_seed(h * w)
    smooth, steps = torch.rand(1, 2, h, w), torch.randint(0, 4, (1, 2, h, w)) / 4
    maps = torch.cat([smooth, steps, -smooth]).to(dtype)
    scores, indices = ops.topk_peaks(maps, k, kernel, *size, 0.1)
    want_scores, want_indices = reference.topk_peaks(maps, k, kernel, size, 0.1)
    assert torch.equal(scores, want_scores)
    assert torch.equal(indices, want_indices)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_peaks_of_maps_that_are_not_finite(ops, bad):
    maps = torch.rand(1, 3, 18, 70)
    maps[0, 1, 17, 69] = bad
    scores, indices = ops.topk_peaks(maps, 4, 5, 36, 140, 0.1)
    assert scores[0, 1].isnan().all()
    assert not indices[0, 1].any()
    assert scores[0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", MAP_TYPES)
@pytest.mark.parametrize(("h", "w"), [(2, 2), (6, 10), (38, 70), (66, 132)])
@pytest.mark.parametrize("stages", [1, 2])
def test_aggregation(ops, h, w, stages, dtype):
    torch.manual_seed(h * w)
    shapes = [(h // 2, w // 2), (h, w)] * 2
    maps = [[torch.randn(2, 3, *shape).to(dtype) for _ in range(stages)] for shape in shapes]
    flip = [1, 0, 2]
    exact = [[level.double() for level in levels] for levels in maps]
    want = reference.aggregate_heatmaps(*exact, flip)
    torch.testing.assert_close(
        ops.aggregate_heatmaps(*maps, flip).double(), want, rtol=0, atol=1e-6
    )
    want = reference.aggregate_heatmaps(*exact[:2])
    torch.testing.assert_close(
        ops.aggregate_heatmaps(*maps[:2], [], [], []).double(), want, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("people_there", [0, 1, 5, 40])
@pytest.mark.parametrize(("K", "max_people"), [(30, 30), (8, 30), (45, 10)])
def test_grouping(ops, people_there, K, max_people, T):
    """The very same people, whether candidates or people are more."""
    torch.manual_seed(people_there)
    B, J = 2, 4
    whose = torch.arange(K).remainder(max(people_there, 1))
    tags = (whose * 1.5)[:, None] + torch.randn(B, J, K, T) * 0.3
    scores = torch.rand(B, J, K).sort(descending=True).values
    scores = scores * (torch.arange(K) < people_there)
    xy = torch.rand(B, J, K, 2) * 100
    tags[0, 1, 0] = float("nan")  # dropped
    order = [2, 0, 3, 1]
    got, counts = ops.group_tags(scores, xy, tags, order, max_people, 1.0, 0.1)
    want, want_counts = reference.group_tags(scores, xy, tags, order, max_people, 1.0, 0.1)
    assert torch.equal(counts, want_counts)
    assert torch.equal(got, want)


def scene(h: int, w: int, J: int, T: int, dtype) -> tuple[Tensor, Tensor]:
    """Heatmaps [2, J, h, w] and tags [2, J, T, h, w] of a few people, with noise."""
    heatmaps = torch.rand(2, J, h, w) * 0.1
    heatmaps[:, :, h // 3, w // 4] = 0.9
    heatmaps[:, :, h // 2 :, w // 2 :] += torch.rand(h - h // 2, w - w // 2)
    tags = torch.randn(2, J, T, h, w) * 0.3
    tags[..., w // 2 :] += 3
    return heatmaps.to(dtype), tags.to(dtype)


@pytest.mark.parametrize("dtype", MAP_TYPES)
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize(
    ("h", "w", "size"), [(1, 1, (1, 1)), (17, 33, (34, 66)), (9, 20, (23, 41))]
)
def test_reading_peaks(ops, h, w, size, subpixel, dtype):
    torch.manual_seed(h)
    heatmaps, tags = scene(h, w, 3, 2, dtype)
    H, W = size
    indices = torch.randint(H * W, (2, 3, 11))
    indices[..., :2] = torch.tensor([0, H * W - 1])
    xy, values = ops.read_peaks(heatmaps, tags, indices, H, W, subpixel)
    want_xy, want_values = reference.read_peaks(heatmaps, tags, indices, size, subpixel)
    torch.testing.assert_close(xy, want_xy, rtol=0, atol=1e-4)
    assert torch.equal(values, want_values)


@pytest.mark.parametrize("dtype", MAP_TYPES)
@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize(
    ("h", "w", "size"), [(1, 1, (1, 1)), (34, 40, (68, 80)), (37, 45, (37, 45))]
)
def test_refinement(ops, h, w, size, T, dtype):
    torch.manual_seed(h)
    J, M = 3, 40
    heatmaps, tags = scene(h, w, J, T, dtype)
    if h > 1:
        heatmaps[1, 2, h - 1, w - 1] = float("inf")
    rows = torch.rand(2, M, J, 3 + T)
    rows[..., 3:] = torch.randn(2, M, 1, T) * 2 + torch.randn(2, M, J, T) * 0.1
    rows[torch.rand(2, M, J) < 0.5] = 0
    rows[:, :, 0, 2] = 0.5  # everyone has a joint
    counts = torch.tensor([M, 3])
    rows[1, 3:] = 0
    got = ops.refine_people(heatmaps, tags, rows, counts, *size, False)
    want = reference.refine_people(heatmaps, tags, rows, counts, size)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.parametrize("name", cases(None))
def test_kernels_fit_a_cuda_graph(name):
    """No operator synchronises: captured and replayed, it gives what it gives at once."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, which is not here")
    run = cases(torch.ops.dhn, "cuda")[name]
    want = run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run()
    for tensor in tree_leaves(got):
        tensor.fill_(-1)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(got, want, rtol=0, atol=0)
