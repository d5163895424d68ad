"""Parity with the official HigherHRNet code, on fixtures that it wrote (benchmarks/parity.py)."""

import numpy as np
import pytest
import torch
from munkres import Munkres

from dhn import ops


def group_as_official(scores, xy, tags, order, max_people, tag_threshold, detection_threshold):
    """One picture's people, by the package that the official code calls; a list of {joint: k}."""
    people = []
    for j in order:
        candidates = [k for k in range(scores.shape[1]) if scores[j, k] > detection_threshold]
        known = people[:max_people]
        joined = {}
        if known and candidates:
            means = np.stack([np.mean([tags[i, k] for i, k in p.items()], axis=0) for p in known])
            distance = np.linalg.norm(tags[j, candidates][:, None].astype(float) - means, axis=2)
            cost = np.round(distance) * 100 - scores[j, candidates, None].astype(float)
            excess = max(0, len(candidates) - len(known))
            cost = np.pad(cost, ((0, 0), (0, excess)), constant_values=1e10)
            joined = {
                candidates[i]: p
                for i, p in Munkres().compute(cost)
                if p < len(known) and distance[i, p] < tag_threshold
            }
        for k in candidates:
            if k in joined:
                people[joined[k]][j] = k
            else:
                people.append({j: k})
    return people


@pytest.mark.parametrize("people", [3, 8, 30])
@pytest.mark.parametrize("T", [1, 2])
def test_equal_costs_are_resolved_as_by_the_package_munkres(people, T):
    generator = np.random.default_rng(people * 10 + T)
    for _ in range(40 if people < 30 else 4):
        J, K = 5, int(generator.integers(1, 12 if people < 30 else 31))
        scores = generator.random((J, K), np.float32)
        xy = generator.random((J, K, 2), np.float32) * 64
        # Tags closer than the rounding: most assignments have rivals of equal cost.
        tags = generator.normal(0, generator.choice([0.3, 1, 3]), (J, K, T)).astype(np.float32)
        order = generator.permutation(J).tolist()
        inputs = [torch.from_numpy(x)[None] for x in (scores, xy, tags)]
        settings = (order, people, 1.0, 0.1)
        expected = group_as_official(scores, xy, tags, *settings)

        found, counts = ops.group_tags(*inputs, *settings, munkres=True)

        assert counts.tolist() == [len(expected)]
        for row, person in zip(found[0].numpy(), expected, strict=False):
            assert np.flatnonzero(row[:, 2]).tolist() == sorted(person)
            for j, k in person.items():
                np.testing.assert_array_equal(row[j, :2], xy[j, k])


def test_both_assignments_group_alike_where_nothing_is_equal():
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(6.0).view(1, 1, 6, 1) * 3
    tags = person + 0.1 * torch.randn(2, 4, 6, 2, generator=generator)
    scores = 0.2 + 0.7 * torch.rand(2, 4, 6, generator=generator)
    xy = 64 * torch.rand(2, 4, 6, 2, generator=generator)

    for mine, munkres in zip(
        ops.group_tags(scores, xy, tags),
        ops.group_tags(scores, xy, tags, munkres=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, munkres, rtol=0, atol=0)


def test_huge_tags_do_not_hang_the_assignment():
    tags = torch.full((1, 2, 3, 1), 3e38)
    tags[0, 1] *= -1
    ones = torch.ones(1, 2, 3)
    _, counts = ops.group_tags(ones, torch.zeros(1, 2, 3, 2), tags, munkres=True)
    assert counts.tolist() == [6]
