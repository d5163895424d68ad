"""Sizes that no memory holds are refused before anything multiplies them, in one clear line.

The tensors are expanded (their strides are 0) or empty, so that they take no memory here.
"""

import pytest
import torch

BILLION = 10**9
HUGE = 2**31, 2**33  # of a tensor: torch itself multiplies these
NUMBERS = 2**31, 2**32 + 1, 2**63 - 1  # of an argument
TARGET = (4.0, 7.0, 10.0, "disc")


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(()).expand(shape)


def maps(*, B=1, J=2, h=4, w=4, T=1) -> tuple[torch.Tensor, torch.Tensor]:
    return zeros(B, J, h, w), zeros(B, J, T, h, w)


def render(ops, *, B=1, P=1, J=1, h=4, w=4):
    return ops.render_heatmaps(zeros(B, P, J, 3), [h], [w], [4.0], [7.0], [10.0], "disc")


def mse(ops, *, B=1, P=1, J=1, h=4, w=4):
    return ops.heatmap_mse(zeros(B, J, h, w), zeros(B, P, J, 3), None, *TARGET)


def mse_backward(ops, *, B=1, P=1, J=1, h=4, w=4):
    points = zeros(B, P, J, 3)
    return ops.heatmap_mse_backward(zeros(B), zeros(B, J, h, w), points, None, *TARGET)


def topk(ops, *, K=3, kernel=5, H=4, W=4, **sizes):
    return ops.topk_peaks(maps(**sizes)[0], K, kernel, H, W, 0.1)


def read(ops, *, K=3, H=4, W=4, B=1, J=2, **sizes):
    indices = torch.zeros((), dtype=torch.int64).expand(B, J, K)
    return ops.read_peaks(*maps(B=B, J=J, **sizes), indices, H, W, False)


def group(ops, *, B=1, J=2, K=3, T=1, people=5):
    order = list(range(min(J, 2)))
    return ops.group_tags(
        zeros(B, J, K), zeros(B, J, K, 2), zeros(B, J, K, T), order, people, 1.0, 0.1
    )


def refine(ops, *, B=1, J=2, M=3, T=1, H=4, W=4, **sizes):
    counts = torch.zeros((), dtype=torch.int64).expand(B)
    people = zeros(B, M, J, 3 + T)
    return ops.refine_people(*maps(B=B, J=J, T=T, **sizes), people, counts, H, W, False)


def decode(ops, *, people=5, kernel=5, H=4, W=4, J=2, **sizes):
    both = maps(J=J, **sizes)
    order = list(range(min(J, 2)))
    return ops.decode_poses(*both, H, W, order, people, kernel, 1.0, 0.1, True, False, False)


def aggregate(ops, *, B=1, J=2, h=4, w=4):
    half = zeros(B, J, h, w)
    return ops.aggregate_heatmaps([zeros(B, J, h // 2, w // 2)], [half], [], [], [])


# Which sizes an operator multiplies; a number with a name, or several at once.
SINGLE = {
    render: ["B", "P", "J", "h", "w"],
    mse: ["B", "P", "J", "h", "w"],
    mse_backward: ["B", "P", "J", "h", "w"],
    topk: ["B", "J", "h", "w", "H", "W", "K", "kernel"],
    read: ["B", "J", "h", "w", "H", "W", "K", "T"],
    group: ["B", "J", "K", "T", "people"],
    refine: ["B", "J", "h", "w", "H", "W", "M", "T"],
    decode: ["B", "J", "h", "w", "H", "W", "T", "people", "kernel"],
    aggregate: ["B", "J", "h", "w"],
}
TOGETHER = [
    (render, {"B": BILLION, "J": BILLION}),
    (render, {"h": 32767, "w": 32767, "J": BILLION}),
    (mse, {"B": BILLION, "J": BILLION, "h": 1, "w": 1}),
    (mse_backward, {"P": BILLION, "J": BILLION}),
    (topk, {"B": BILLION, "J": BILLION, "h": 1, "w": 1}),
    (topk, {"B": BILLION, "K": 32767, "h": 1, "w": 1}),
    (read, {"K": BILLION, "T": BILLION}),
    (group, {"B": 10**6, "K": 32767, "T": 10**6}),
    (group, {"B": BILLION, "K": 32767}),
    (refine, {"M": BILLION, "T": BILLION}),
    (decode, {"B": BILLION, "people": 32767, "h": 1, "w": 1}),
    (aggregate, {"B": BILLION, "J": BILLION, "h": 2, "w": 2}),
    (topk, {"B": 0, "J": 2**31}),  # an empty batch hides nothing
    (group, {"B": 0, "K": 2**33}),
]
ARGUMENTS = {
    (topk, "K"),
    *((call, name) for call in SINGLE for name in ("H", "W", "kernel", "people")),
}
CASES = [
    (call, {name: size})
    for call, names in SINGLE.items()
    for name in names
    for size in (NUMBERS if (call, name) in ARGUMENTS else HUGE)
]


def name_of(value: object) -> str:
    if callable(value):
        return value.__name__
    return "-".join(f"{name}{size}" for name, size in value.items())


@pytest.mark.parametrize(("call", "sizes"), CASES + TOGETHER, ids=name_of)
def test_huge_sizes_are_refused_in_one_line(kernels, call, sizes):
    if call is decode and kernels is not torch.ops.dhn:
        pytest.skip("decode_poses runs on the CPU only")
    with pytest.raises(RuntimeError) as refused:
        call(kernels, **sizes)
    line = str(refused.value)
    assert "\n" not in line
    assert "API call failed" not in line  # an allocation that was tried, or an error on the way
    assert any(word in line for word in ("too large", "up to", "may have", "lie in")), line


@pytest.mark.parametrize(
    ("call", "sizes"), [(render, {"B": BILLION, "J": BILLION}), (topk, {"K": 2**62})], ids=name_of
)
def test_shapes_alone_overflow_in_one_line(call, sizes):
    """On meta tensors there are shapes only, which torch itself multiplies."""
    import dhn.ops  # noqa: F401

    with torch.device("meta"), pytest.raises(RuntimeError, match="overflow") as refused:
        call(torch.ops.dhn, **sizes)
    assert "\n" not in str(refused.value).split("\nException raised from")[0]


@pytest.mark.parametrize("length", [float("inf"), float("nan"), 1e-300, 1e300, 0.0, -1.0])
@pytest.mark.parametrize("which", range(3))
def test_lengths_without_sense_are_refused(kernels, length, which):
    lengths = [4.0, 7.0, 10.0]
    lengths[which] = length
    with pytest.raises(RuntimeError, match=r"must lie in 1e-6\.\.1e6"):
        kernels.heatmap_mse(zeros(1, 1, 4, 4), zeros(1, 1, 1, 3), None, *lengths, "disc")


def test_the_largest_settings_that_are_taken(kernels):
    """Buffers grow with what is there, not with what may be."""
    ones = torch.ones(1, 2, 3)
    most = 32767 if kernels is torch.ops.dhn else 128
    tags = torch.arange(6.0).view(1, 2, 3, 1) * 5
    _, counts = kernels.group_tags(ones, torch.zeros(1, 2, 3, 2), tags, [0, 1], most, 1.0, 0.1)
    assert counts.tolist() == [6]
