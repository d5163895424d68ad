import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, results_of
from dhn.cli import main
from dhn.data.joints import COCO
from dhn.evaluation.bootstrap import figure_samples, image_weights, interval, intervals
from dhn.evaluation.figures import figures, judge
from dhn.evaluation.people import people_of
from dhn.evaluation.precision import image_precision
from dhn.evaluation.scoring import score


def repeated(raw, results, weights):
    """The data set with every image as often as its weight says, as copies with other ids."""
    images, people, found = [], [], []
    order = sorted(image["id"] for image in raw["images"])
    for image_id, weight in zip(order, weights, strict=True):
        for _ in range(weight):
            new = {"image_id": len(images) + 1}
            (image,) = (i for i in raw["images"] if i["id"] == image_id)
            images.append(image | {"id": new["image_id"]})
            people += [p | new for p in raw["annotations"] if p["image_id"] == image_id]
            found += [r | new for r in results if r["image_id"] == image_id]
    people = [person | {"id": id} for id, person in enumerate(people, 1)]
    return raw | {"images": images, "annotations": people}, found


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["crowdpose", "coco"]))
def test_weights_are_repetitions(seed, kind):
    rng = np.random.default_rng(seed)
    raw = make_set(6, COCO, seed=seed)
    results = results_of(raw, noise=rng.uniform(0, 10), seed=seed)
    results += results_of(raw, noise=15, seed=seed + 1)
    for result, rank in zip(results, rng.permutation(len(results)), strict=True):
        result["score"] = float(rank) / len(results)  # all different
    weights = rng.integers(0, 4, (3, 6)).astype(np.int32)
    judged = judge(*people_of(raw, results, kind))
    sampled = figures(judged, weights)
    for s, row in enumerate(weights):
        if row.sum():
            official = score(*repeated(raw, results, row), kind, evaluator="pycocotools")
            assert list(sampled) == list(official)
            for key, value in official.items():
                assert abs(sampled[key][s] - value) < 1e-9, key


def test_samples_are_reproducible_draws_with_replacement():
    weights = image_weights(50, 400, seed=3)
    assert weights.shape == (400, 50)
    assert set(weights.sum(axis=1)) == {50}
    np.testing.assert_array_equal(weights, image_weights(50, 400, seed=3))
    assert (weights != image_weights(50, 400, seed=4)).any()
    assert np.abs(weights.mean(axis=0) - 1).max() < 6 / np.sqrt(400)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)


def test_interval():
    values = np.arange(1001) / 1000
    assert interval(values) == pytest.approx((0.025, 0.975))
    assert interval(np.append(values, [np.nan] * 99)) == pytest.approx((0.025, 0.975))
    assert interval(np.full(5, np.nan)) is None


def test_intervals_hold_the_figures_and_shrink_with_images():
    widths = []
    for images in (20, 320):
        raw = make_set(images, seed=1)
        judged = judge(*people_of(raw, results_of(raw, noise=6), "crowdpose"))
        found = intervals(judged, samples=200, seed=5)
        assert found == intervals(judged, samples=200, seed=5)
        for key, (value,) in figures(judged).items():
            assert found[key].low <= value <= found[key].high
        widths.append(found["AR"].high - found["AR"].low)
    assert widths[1] < widths[0] / 2  # sixteen times the images: about a quarter


def test_nobody_to_be_found():
    raw = make_set(4, crowd_index=False)
    judged = judge(*people_of(raw, results_of(raw), "crowdpose"))
    assert intervals(judged, samples=20)["AP_easy"] is None
    samples = figure_samples(judged, np.zeros((2, 4), np.int32))
    assert np.isnan(samples["AP"]).all()


@pytest.mark.parametrize("seed", range(3))
def test_precision_of_single_images(seed):
    raw = make_set(12, seed=seed)
    results = results_of(raw, noise=4, seed=seed) + results_of(raw, noise=7, seed=seed + 1)
    truth, found = people_of(raw, results, "crowdpose")
    single = image_precision(truth, found, judge(truth, found).matches)
    for image_id, value in zip(truth.image_ids, single, strict=True):
        alone = [int(i["id"] == image_id) for i in raw["images"]]
        official = score(*repeated(raw, results, alone), "crowdpose", evaluator="pycocotools")
        assert value == pytest.approx(official["AP"]) or (np.isnan(value) and official["AP"] == -1)


def test_command(tmp_path):
    raw = make_set(30)
    (tmp_path / "gt.json").write_text(json.dumps(raw))
    (tmp_path / "p.json").write_text(json.dumps(results_of(raw, noise=5)))
    args = ["eval", "--results", tmp_path / "p.json", "--annotations", tmp_path / "gt.json"]
    args += ["--bootstrap", "--output", tmp_path / "stats.json"]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    header, names, values, ranges = result.stdout.splitlines()
    assert header.endswith("percent, with 95 % intervals of 1,000 bootstrap samples")
    stats = json.loads((tmp_path / "stats.json").read_text())
    found = stats.pop("intervals")
    assert names.split() == list(stats) == list(found)
    assert values.split() == [f"{100 * value:.1f}" for value in stats.values()]
    assert ranges.split() == [f"{100 * low:.1f}-{100 * high:.1f}" for low, high in found.values()]
    assert stats == score(raw, results_of(raw, noise=5), "crowdpose")
