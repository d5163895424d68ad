import json

import numpy as np
import pytest
from click.testing import CliRunner

from coco_sets import make_set, results_of
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.evaluation.bootstrap import image_weights, interval
from dhn.evaluation.compare import compare
from dhn.evaluation.error_analysis import analyse_errors, gains
from dhn.evaluation.figures import figures, judge
from dhn.evaluation.people import people_of
from planted import annotated, crowd_set, predictions_of


def judged(raw, results):
    return judge(*people_of(raw, results, "crowdpose"))


@pytest.fixture(scope="module")
def raw():
    return make_set(80, seed=3)


@pytest.fixture(scope="module")
def systems(raw):
    noise = {"good": 2, "bad": 6, "similar": 2}
    return {
        name: judged(raw, results_of(raw, noise=size, seed=k))
        for k, (name, size) in enumerate(noise.items())
    }


@pytest.fixture(scope="module")
def comparisons(systems):
    return compare(systems, samples=60, seed=4)


def test_pairs_and_verdicts(comparisons):
    assert [(c.first, c.second) for c in comparisons] == [
        ("good", "bad"),
        ("good", "similar"),
        ("bad", "similar"),
    ]
    worse, same, better = comparisons
    assert [c.figures["AP"].verdict for c in comparisons] == ["worse", "undecided", "better"]
    assert [c.shares["jitter"].verdict for c in comparisons] == ["worse", "undecided", "better"]
    assert [c.losses["miss"].verdict for c in (worse, better)] == ["worse", "better"]
    assert worse.defeats > 3 * worse.wins
    assert better.wins > 3 * better.defeats


def test_differences_are_those_of_the_same_samples(comparisons, systems):
    a, b = systems["good"], systems["bad"]
    weights = image_weights(80, 60, 4)
    errors = [analyse_errors(s.truth, s.found) for s in (a, b)]
    for part, whole, sampled in (
        ("figures", [figures(s) for s in (a, b)], [figures(s, weights) for s in (a, b)]),
        ("shares", [e.shares() for e in errors], [e.shares(weights) for e in errors]),
        ("losses", [gains(e) for e in errors], [gains(e, weights) for e in errors]),
    ):
        found = getattr(comparisons[0], part)
        assert list(found) == list(whole[0])
        for name, row in found.items():
            first, second = (float(values[name][0]) for values in whole)
            assert (row.first, row.second) == pytest.approx((first, second), abs=1e-9)
            assert row.change == pytest.approx(second - first, abs=1e-9)
            expected = interval(sampled[1][name] - sampled[0][name])
            assert row.interval == pytest.approx(expected, abs=1e-9)


def test_pairing_finds_what_intervals_of_each_do_not():
    """A joint of every 18th person moves: few images tell, and none of them the other way."""
    crowd = crowd_set(60, 3, seed=2)
    rng = np.random.default_rng(0)
    truth = annotated(crowd)
    base = truth[..., :2] + rng.normal(0, 6, (*truth.shape[:2], 2))
    worse = base.copy()
    worse[::18, 0] += 500
    scores = rng.uniform(0.2, 1, len(base))
    a, b = (judged(crowd, predictions_of(crowd, xy, scores)) for xy in (base, worse))
    (comparison,) = compare({"a": a, "b": b}, samples=200)
    row = comparison.figures["AP"]
    weights = image_weights(60, 200, 0)
    of_a, of_b = (interval(figures(s, weights)["AP"]) for s in (a, b))
    assert of_a.low < of_b.high  # each by itself says nothing
    assert row.verdict == "worse"
    assert comparison.wins == 0 < comparison.defeats


def test_the_same_predictions_are_undecided(systems):
    (comparison,) = compare({"a": systems["good"], "b": systems["good"]}, samples=20)
    rows = [*comparison.figures.values(), *comparison.shares.values(), *comparison.losses.values()]
    assert {(row.change, row.interval, row.verdict) for row in rows if row} == {
        (0.0, (0.0, 0.0), "undecided")
    }
    assert comparison.wins == comparison.defeats == 0


def test_images_without_people_and_without_crowd_index():
    raw = make_set(8, crowd_index=False)
    empty = raw["images"][3]["id"]
    raw["annotations"] = [p for p in raw["annotations"] if p["image_id"] != empty]
    (comparison,) = compare(
        {"a": judged(raw, results_of(raw)), "b": judged(raw, results_of(raw, noise=9))}, samples=20
    )
    assert comparison.figures["AP_hard"] is None
    assert empty not in {image.image_id for image in comparison.images}
    changes = [image.second - image.first for image in comparison.images]
    assert changes == sorted(changes, reverse=True)


def test_what_cannot_be_compared(systems):
    with pytest.raises(DhnError, match="two systems"):
        compare({"a": systems["good"]})
    other = make_set(5)
    with pytest.raises(DhnError, match="same images"):
        compare({"a": systems["good"], "b": judged(other, results_of(other))})


# The command


@pytest.fixture
def folder(tmp_path, raw):
    (tmp_path / "gt.json").write_text(json.dumps(raw))
    (tmp_path / "a.json").write_text(json.dumps(results_of(raw, noise=6)))
    (tmp_path / "b.json").write_text(json.dumps(results_of(raw, noise=2)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.json").write_text(json.dumps(results_of(raw, noise=6, seed=1)))
    return tmp_path


def run(folder, *args):
    args = [folder / arg if str(arg).endswith("json") else arg for arg in args]
    args = ["compare", *args, "--annotations", folder / "gt.json", "--samples", 30]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert "Traceback" not in result.output
    return result


def test_command(folder):
    result = run(folder, "a.json", "b.json", "--json-output", "c.json")
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "c.json").read_text())
    (comparison,) = written["comparisons"]
    ap = comparison["figures"]["AP"]
    assert ap["verdict"] == "better"
    lines = result.stdout.splitlines()
    assert lines[0].startswith("b.json against a.json on gt.json (")
    row = next(line for line in lines if line.startswith("│ AP "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    low, high = ap["interval"]
    assert cells == [
        "AP",
        f"{100 * ap['first']:.1f}",
        f"{100 * ap['second']:.1f}",
        f"{100 * ap['change']:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        "better",
    ]
    wins, defeats, ties = (comparison[key] for key in ("wins", "defeats", "ties"))
    assert lines[-1] == (
        f"AP by image: b.json is better in {wins}, worse in {defeats}, equal in {ties}"
    )
    assert wins + defeats + ties == len(comparison["images"])


def test_three_files_of_which_two_have_the_same_name(folder):
    result = run(folder, "a.json", "b.json", "other/a.json", "-q")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("AP by image: ") == 3
    assert f"{folder}/other/a.json is" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["a.json"], 2, "two files"),
        (["a.json", "a.json"], 2, "named twice"),
        (["a.json", "missing.json"], 1, "missing.json: cannot be read"),
        (["a.json", "gt.json"], 1, "gt.json: must be a list of results"),
        (["a.json", "b.json", "--json-output", "a.json"], 1, "is an input"),
        (["a.json", "b.json", "--dataset", "mpii"], 2, "mpii"),
    ],
)
def test_bad_usage(folder, args, code, message):
    result = run(folder, *args)
    assert result.exit_code == code
    assert message in result.stderr
