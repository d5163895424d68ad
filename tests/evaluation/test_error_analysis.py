"""Errors planted into perfect predictions come out as what they are, as often as they are there."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, results_of
from dhn.cli import main
from dhn.data.joints import CROWDPOSE
from dhn.evaluation.bootstrap import image_weights
from dhn.evaluation.error_analysis import ERRORS, JOINT_ERRORS, analyse_errors, gains
from dhn.evaluation.matching import oks, pairs
from dhn.evaluation.people import people_of
from dhn.evaluation.scoring import score
from planted import annotated, crowd_set, predictions_of

PEOPLE = 4
FLIP = np.array(CROWDPOSE.flip)
PAIRED = np.arange(14) != FLIP


@pytest.fixture(scope="module")
def raw():
    return crowd_set(250, PEOPLE)  # 14,000 joints


class Plant:
    """Predictions made from truth, into which a test puts errors."""

    def __init__(self, raw, seed=0):
        self.raw = raw
        self.rng = np.random.default_rng(seed)
        self.truth = annotated(raw)
        self.xy = self.truth[..., :2].copy()
        self.scores = self.rng.uniform(0.5, 0.9, len(self.xy))
        self.free = np.ones(self.xy.shape[:2], bool)  # joints without an error so far
        areas = [0.53 * p["bbox"][2] * p["bbox"][3] for p in raw["annotations"]]
        # Distance per joint at which the similarity is exp(-1/2).
        self.reach = 2 * np.outer(np.sqrt(areas), CROWDPOSE.sigmas)
        self.strangers = []

    def choose(self, share, among=True):
        """bool [G, J]: `share` of all joints, from those that are free and `among`."""
        candidates = np.flatnonzero(self.free & among)
        count = round(share * self.free.size)
        chosen = np.zeros(self.free.size, bool)
        chosen[self.rng.choice(candidates, count, replace=False)] = True
        chosen = chosen.reshape(self.free.shape)
        self.free &= ~chosen
        return chosen

    def move(self, chosen, similarity):
        """Moves joints into random directions until their similarity is what is asked for."""
        angle = self.rng.uniform(0, 2 * np.pi, self.free.shape)
        distance = self.reach * np.sqrt(-2 * np.log(similarity))
        step = distance[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        self.xy[chosen] += step[chosen]

    def jitter(self, share):
        self.move(self.choose(share), 0.7)

    def invert(self, share):
        chosen = self.choose(share, PAIRED)
        self.xy[chosen] = self.truth[:, FLIP, :2][chosen]

    def swap(self, share):
        neighbour = np.arange(len(self.xy)).reshape(-1, PEOPLE)[:, [1, 0, 3, 2]].ravel()
        chosen = self.choose(share)
        self.xy[chosen] = self.truth[neighbour][..., :2][chosen]

    def miss(self, share):
        self.xy[self.choose(share)] = (-9000, -9000)

    def results(self, drop=()):
        kept = [r for k, r in enumerate(predictions_of(self.raw, self.xy, self.scores))
                if k not in drop]  # fmt: skip
        return kept + self.strangers

    def ghost(self, count):
        for result in predictions_of(self.raw, self.xy + 5000, self.scores)[:count]:
            self.strangers.append(result)

    def copies(self, people, *, better):
        """A second prediction of these people with a higher score, itself worse or better."""
        worse = self.xy.copy()
        worse += self.reach[..., None] * 0.3  # with joints that are still good
        results = predictions_of(self.raw, worse, self.scores + (-0.4 if better else 0.05))
        self.strangers += [results[k] for k in people]


def analysed(raw, results):
    return analyse_errors(*people_of(raw, results, "crowdpose"))


def shares(analysis):
    return {name: float(share[0]) for name, share in analysis.shares().items()}


def test_planted_errors_come_out(raw):
    plant = Plant(raw)
    plant.swap(0.10)
    plant.invert(0.05)
    plant.jitter(0.12)
    plant.miss(0.07)
    people = len(plant.xy)
    dropped = set(range(0, people, 25))  # 4 %
    plant.ghost(80)
    wrongly_scored = [k for k in range(1, people, 10) if k not in dropped]
    plant.copies(wrongly_scored, better=False)
    results = plant.results(dropped)
    found = shares(analysed(raw, results))
    assert found == pytest.approx(
        {
            "jitter": 0.12,
            "inversion": 0.05,
            "swap": 0.10,
            "miss": 0.07,
            "scoring": len(wrongly_scored) / (people - len(dropped)),
            "background": 80 / len(results),
            "duplicate": len(wrongly_scored) / len(results),
            "not_found": len(dropped) / people,
        },
        abs=0.01,
    )


@pytest.mark.parametrize("error", JOINT_ERRORS)
def test_one_error_alone(raw, error):
    plant = Plant(raw, seed=1)
    plants = {"jitter": plant.jitter, "inversion": plant.invert, "swap": plant.swap,
              "miss": plant.miss}  # fmt: skip
    plants[error](0.1)
    analysis = analysed(raw, plant.results())
    found = shares(analysis)
    assert found.pop(error) == pytest.approx(0.1, abs=0.001)
    assert set(found.values()) == {0.0}
    gained = {name: float(gain[0]) for name, gain in gains(analysis).items()}
    ap = score(raw, plant.results(), "crowdpose")["AP"]
    assert gained.pop(error) == pytest.approx(1 - ap)
    gained.pop("scoring")  # may help people who are not perfect
    assert list(gained.values()) == pytest.approx([0.0] * 6)
    assert ap < 0.97


@pytest.mark.parametrize("similarity", [0.96, 0.86, 0.84, 0.51])
def test_jitter_of_known_size(raw, similarity):
    plant = Plant(raw)
    plant.move(np.ones_like(plant.free), similarity)
    analysis = analysed(raw, plant.results())
    expected = float(similarity < 0.85)
    assert shares(analysis)["jitter"] == pytest.approx(expected, abs=0.01)
    assert np.nanmedian(analysis.joint_similarity) == pytest.approx(similarity, abs=1e-3)


def test_ghosts_and_people_not_found(raw):
    plant = Plant(raw)
    plant.scores[:] = 0.5
    plant.ghost(100)
    for ghost in plant.strangers:
        ghost["score"] = 0.9
    dropped = set(range(0, len(plant.xy), 5))
    results = plant.results(dropped)
    analysis = analysed(raw, results)
    found = shares(analysis)
    assert found["background"] == pytest.approx(100 / len(results))
    assert found["not_found"] == pytest.approx(0.2)
    gained = {name: float(gain[0]) for name, gain in gains(analysis).items()}
    ap = score(raw, results, "crowdpose")["AP"]
    without_ghosts = score(raw, results[:-100], "crowdpose")["AP"]
    assert gained["background"] == pytest.approx(without_ghosts - ap) == gained["scoring"]
    everybody = [p for k, p in enumerate(raw["annotations"]) if k not in dropped]
    assert gained["not_found"] == pytest.approx(
        score(raw | {"annotations": everybody}, results, "crowdpose")["AP"] - ap
    )


def test_scores_in_the_wrong_order(raw):
    plant = Plant(raw)
    plant.copies(range(400), better=False)
    plant.copies(range(400, 600), better=True)  # these duplicates stand where they should
    analysis = analysed(raw, plant.results())
    found = shares(analysis)
    assert found["scoring"] == pytest.approx(400 / len(plant.xy))
    assert found["duplicate"] == pytest.approx(600 / (len(plant.xy) + 600))
    gained = gains(analysis)
    ap = score(raw, plant.results(), "crowdpose")["AP"]
    assert gained["scoring"][0] == pytest.approx(1 - ap)
    assert gained["scoring"][0] > 0.01


def people_by_the_definition(truth, found):
    """Whom each prediction stands for, from a matrix of everybody with everybody."""
    fit = np.zeros((len(found.image), len(truth.image)))
    between = pairs(truth, found)
    fit[between] = oks(truth, found, between)
    person = []
    for row in fit:
        for group in (~truth.ignored, truth.ignored):
            best = max(np.flatnonzero(group), key=lambda g: row[g], default=None)
            if best is not None and row[best] >= 0.1:
                person.append(best if truth.ignored[best] or best not in person else -1)
                break
        else:
            person.append(-1)
    return np.array(person)


def test_joints_by_the_definition():
    """Every joint of noisy crowds against loops over the text of the definition."""
    noisy = make_set(12, seed=3)
    for person in noisy["annotations"]:
        person["bbox"] = [*person["bbox"][:2], 60, 90]
    analysis = analysed(noisy, results_of(noisy, noise=14, seed=2))
    truth, found = analysis.truth, analysis.found
    person = people_by_the_definition(truth, found)
    np.testing.assert_array_equal(analysis.person, person)

    def s(f, j, g, k):
        x, y, v = truth.keypoints[g, k]
        d2 = ((found.keypoints[f, j] - (x, y)) ** 2).sum()
        return np.exp(-d2 / (2 * truth.areas[g] * (2 * truth.sigmas[j]) ** 2)) if v > 0 else 0

    seen = set()
    for f, g in enumerate(person):
        others = [k for k in np.flatnonzero(truth.image == found.image[f]) if k != g]
        for j, m in enumerate(FLIP):
            if g < 0 or truth.ignored[g] or truth.keypoints[g, j, 2] == 0:
                expected = -1
            elif s(f, j, g, j) >= 0.5:
                expected = int(s(f, j, g, j) < 0.85)
            else:
                inverted = s(f, j, g, m) if m != j else 0
                swapped = max((s(f, j, k, i) for k in others for i in (j, m)), default=0)
                expected = 4
                if max(inverted, swapped) >= 0.5:
                    expected = 2 if inverted >= swapped else 3
            assert analysis.joints[f, j] == expected
            seen.add(expected)
    assert seen == {-1, 0, 1, 2, 3, 4}


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_sums_agree(seed):
    drawn = make_set(5, seed=seed)
    results = results_of(drawn, noise=seed % 30, seed=seed)
    results += results_of(make_set(5, seed=seed + 1), seed=seed)
    analysis = analysed(drawn, results)
    counts = analysis.by_image
    assert list(counts) == list(ERRORS)
    for cases, possible in counts.values():
        assert (cases >= 0).all()
        assert (cases <= possible).all()
    # A sample that draws every image once has the shares and gains of the data set.
    once = np.ones((1, 5), np.int32)
    for name, share in analysis.shares(once).items():
        np.testing.assert_array_equal(share, analysis.shares()[name])
    twice = gains(analysis, 2 * once)
    for name, gain in gains(analysis).items():
        assert twice[name] == pytest.approx(gain, nan_ok=True)
    assert not (gains(analysis)["not_found"] < -1e-9).any()


def test_nobody_anywhere():
    empty = make_set(3) | {"annotations": []}
    for results in ([], results_of(make_set(3))):
        analysis = analysed(empty, results)
        assert np.isnan(analysis.shares()["miss"]).all()
        assert all(np.isnan(gain).all() for gain in gains(analysis).values())


def test_command(raw, tmp_path):
    plant = Plant(raw)
    plant.swap(0.1)
    (tmp_path / "gt.json").write_text(json.dumps(raw))
    (tmp_path / "p.json").write_text(json.dumps(plant.results()))
    args = ["eval", "--results", tmp_path / "p.json", "--annotations", tmp_path / "gt.json"]
    args += ["--errors", "-q", "--output", tmp_path / "stats.json"]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert list(stats["errors"]) == list(ERRORS)
    swap = stats["errors"]["swap"]
    assert swap["share"] == pytest.approx(0.1, abs=0.001)
    assert stats["AP"] + swap["gain"] == pytest.approx(1)
    (line,) = (line for line in result.stdout.splitlines() if " swap " in line)
    assert f"{100 * swap['gain']:+.1f}" in line
    assert str(swap["cases"]) in line


def test_on_real_annotations(shared):
    raw = json.loads((shared / "fixtures/evaluation/crowded_gt.json").read_text())
    results = json.loads((shared / "fixtures/evaluation/preds_crowded.json").read_text())
    analysis = analysed(raw, results)
    gained = gains(analysis)
    ap = score(raw, results, "crowdpose")["AP"]
    weights = image_weights(len(analysis.truth.image_ids), 20, 0)
    assert all(0 <= share.min() <= share.max() <= 1 for share in analysis.shares(weights).values())
    assert all(-ap <= gain[0] <= 1 - ap for gain in gained.values())
