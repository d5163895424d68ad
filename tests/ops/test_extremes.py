"""Tags and heatmaps up to the largest finite number of their dtype, as diverged networks give.

The operators of decode must end and give what the reference gives, on the CPU and in the CUDA
kernels (in the SIMT runner). float64 maps are read as float32, on both sides.
"""

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dhn.ops import DecodeConfig, reference
from dhn.ops.plain import upsample

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
dtypes = st.sampled_from(DTYPES)
# The fixture `kernels` is the same for all examples of a test.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Palette:
    """Tensors of a dtype from values between zero and its largest number, chosen by a seed."""

    def __init__(self, dtype: torch.dtype, seed: int, tame: float) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.tame = tame  # the share of ordinary numbers
        limits = torch.finfo(torch.float32 if dtype == torch.float64 else dtype)
        wild = [limits.max, limits.max / 2, limits.max**0.5, limits.max**0.4, limits.tiny, 1e4, 1.0]
        self.wild = torch.tensor([0.0, *wild, *(-value for value in wild)], dtype=torch.float64)

    def __call__(self, *shape: int) -> torch.Tensor:
        chosen = torch.randint(len(self.wild), shape, generator=self.generator)
        ordinary = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        wild = torch.rand(shape, generator=self.generator) >= self.tame
        return torch.where(wild, self.wild[chosen], ordinary).to(self.dtype)


palettes = st.tuples(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.95]))
thresholds = st.sampled_from([1.0, 1e14, 1e16, 3e38])


def equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.equal(ours.nan_to_num(nan=-7), theirs.to(ours.dtype).nan_to_num(nan=-7))


@examples
@given(
    dtype=dtypes,
    palette=palettes,
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 6), st.integers(1, 2)),
    people=st.integers(1, 8),
    tag_threshold=thresholds,
)
def test_grouping(kernels, dtype, palette, sizes, people, tag_threshold):
    draw = Palette(dtype, *palette)
    B, J, K, T = sizes
    inputs = draw(B, J, K), draw(B, J, K, 2), draw(B, J, K, T)
    order = list(reversed(range(J)))
    got, counts = kernels.group_tags(*inputs, order, people, tag_threshold, 0.1)
    exact = [values.float() for values in inputs]
    want, want_counts = reference.group_tags(*exact, order, people, tag_threshold, 0.1)
    assert torch.equal(counts, want_counts)
    assert equal(got, want)


def draw_maps(draw: Palette, J: int, T: int, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    return draw(1, J, h, w), draw(1, J, T, h, w)


def finite_at(size: tuple[int, int], *maps: torch.Tensor) -> bool:
    """Whether no blend overflows: of two largest numbers, rounding can make infinity."""
    return all(bool(upsample(values.float(), size).isfinite().all()) for values in maps)


map_sizes = st.tuples(st.integers(1, 19), st.integers(1, 19))
scales = st.sampled_from([1.0, 2.0, 2.3, 0.7])


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    h, w = size
    return max(int(h * scale), 1), max(int(w * scale), 1)


@examples
@given(
    dtype=dtypes,
    palette=palettes,
    J=st.integers(1, 3),
    T=st.integers(1, 2),
    map_size=map_sizes,
    scale=scales,
    people=st.integers(1, 6),
)
def test_refinement(kernels, dtype, palette, J, T, map_size, scale, people):
    draw = Palette(dtype, *palette)
    maps, tags = draw_maps(draw, J, T, *map_size)
    rows = draw(1, people, J, 3 + T).float()
    rows[..., 2] = 0.5
    rows[draw(1, people, J) < 0.5] = 0  # as group_tags leaves what is missing
    size = scaled(map_size, scale)
    got = kernels.refine_people(maps, tags, rows, torch.tensor([people]), *size, False)
    assume(finite_at(size, maps, tags))
    want = reference.refine_people(maps.float(), tags.float(), rows, torch.tensor([people]), size)
    assert equal(got, want)


@examples
@given(
    dtype=dtypes,
    palette=palettes,
    J=st.integers(1, 3),
    T=st.integers(1, 2),
    map_size=map_sizes,
    scale=scales,
    people=st.integers(1, 5),
    tag_threshold=thresholds,
    refine=st.booleans(),
)
def test_decoding(kernels, dtype, palette, J, T, map_size, scale, people, tag_threshold, refine):
    draw = Palette(dtype, *palette)
    maps, tags = draw_maps(draw, J, T, *map_size)
    size = scaled(map_size, scale)
    config = DecodeConfig(max_people=people, tag_threshold=tag_threshold, refine=refine)
    got, finite = decode(kernels, maps, tags, size, config)
    assume(finite_at(size, maps, tags))
    (want,), _, _ = reference.decode_poses(maps.float(), tags.float(), size, config)
    assert finite
    assert equal(got, want)


def decode(kernels, maps, tags, size, config):
    """Keypoints [N, J, 3] of one image and whether all is finite, by the operators there are."""
    order = list(range(maps.shape[1]))
    people, kernel = config.max_people, config.nms_kernel
    limits = config.tag_threshold, config.detection_threshold
    if kernels is torch.ops.dhn:
        for munkres in (True, False):  # the first for its end alone: it breaks ties otherwise
            (got,), _, _, finite = kernels.decode_poses(
                maps, tags, *size, order, people, kernel, *limits, config.refine, False, munkres
            )
        return got, bool(finite)
    scores, indices = kernels.topk_peaks(maps, people, kernel, *size, limits[1])
    xy, values = kernels.read_peaks(maps, tags, indices, *size, False)
    rows, counts = kernels.group_tags(scores, xy, values, order, people, *limits)
    got = rows[..., :3]
    if config.refine:
        got = kernels.refine_people(maps, tags, rows, counts, *size, False)
    return got[0, : int(counts)], not bool(scores.isnan().any())
