"""What the references themselves rest on: upsampling as torch's, and assignments of least cost."""

import itertools

import pytest
import torch

from dhn.ops import reference


@pytest.mark.parametrize(
    ("size", "read_at"),
    [((16, 24), (32, 48)), ((17, 23), (35, 49)), ((1, 1), (2, 3)), ((33, 9), (20, 11))],
)
def test_upsamples_as_torch_does(size, read_at):
    maps = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    torchs = torch.nn.functional.interpolate(maps, read_at, mode="bilinear")
    torch.testing.assert_close(reference.upsample(maps, read_at), torchs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", range(1, 6))
@pytest.mark.parametrize("columns", range(1, 6))
def test_assignment_has_the_least_cost(rows, columns):
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        cost = torch.randint(0, 6, (rows, columns), generator=g).tolist()
        pairs = reference.assign(cost)
        n = min(rows, columns)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == n
        least = min(
            sum(cost[i][j] for i, j in zip(some_rows, some_columns, strict=True))
            for some_rows in itertools.combinations(range(rows), n)
            for some_columns in itertools.permutations(range(columns), n)
        )
        assert sum(cost[i][j] for i, j in pairs) == least
