import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, results_of
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation import matching
from dhn.evaluation.people import MAX_PEOPLE, people_of
from dhn.evaluation.scoring import score


@st.composite
def sets(draw):
    """Annotations and predictions with ties, strangers, crowds, boxes and people without joints."""
    joints = draw(st.sampled_from([CROWDPOSE, COCO]))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    raw = make_set(draw(st.integers(1, 7)), joints, seed=seed)
    results = [
        result
        for copy in range(draw(st.integers(0, 3)))
        for result in results_of(raw, noise=draw(st.sampled_from([0, 2, 6, 20])), seed=seed + copy)
    ]
    results += results_of(make_set(7, joints, seed=seed + 9))[: draw(st.integers(0, 30))]
    results = [r for r in results if r["image_id"] <= len(raw["images"])]
    rng.shuffle(results)
    for result in results:
        result["score"] = float(rng.integers(0, 4)) / 4  # many ties
        if draw(st.just(seed % 2)):
            result["bbox"] = rng.uniform(5, 120, 4).tolist()
    for person in raw["annotations"]:
        if rng.random() < 0.2:
            person["num_keypoints"] = 0
            if rng.random() < 0.5:
                person["keypoints"] = [0] * len(person["keypoints"])
    if draw(st.booleans()):  # two people in the same place
        raw["annotations"] += [
            {**person, "id": person["id"] + 1000} for person in raw["annotations"][::2]
        ]
    return raw, results


@settings(max_examples=60)
@given(sets(), st.sampled_from(["crowdpose", "coco"]))
def test_figures_are_those_of_pycocotools(drawn, kind):
    raw, results = drawn
    ours = score(raw, results, kind)
    theirs = score(raw, results, kind, evaluator="pycocotools")
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert abs(value - theirs[key]) < 1e-9, key


@settings(max_examples=15)
@given(sets())
def test_the_size_of_the_chunks_does_not_matter(drawn):
    truth, found = people_of(*drawn, "crowdpose")
    whole = matching.match(truth, found)
    before, matching._CHUNK = matching._CHUNK, 2
    try:
        chunks = matching.match(truth, found)
    finally:
        matching._CHUNK = before
    for a, b in zip(whole, chunks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_oks_by_the_formula():
    raw = make_set(5)
    truth, found = people_of(raw, results_of(raw, noise=5), "crowdpose")
    between = matching.pairs(truth, found)
    similarity = matching.oks(truth, found, between)
    assert len(similarity) > len(truth.image)
    for f, g, oks in zip(*between, similarity, strict=True):
        assert found.image[f] == truth.image[g]
        terms = []
        for j, (x, y, v) in enumerate(truth.keypoints[g]):
            if v > 0:
                d2 = (found.keypoints[f, j, 0] - x) ** 2 + (found.keypoints[f, j, 1] - y) ** 2
                terms.append(np.exp(-d2 / (2 * truth.areas[g] * (2 * truth.sigmas[j]) ** 2)))
        assert np.isclose(oks, np.mean(terms))


def test_only_the_best_predictions_of_an_image_count():
    raw = make_set(2)
    many = results_of(raw, noise=3) * 30
    for k, result in enumerate(many):
        many[k] = result | {"score": k / len(many)}
    truth, found = people_of(raw, many, "crowdpose")
    assert np.bincount(found.image).max() == MAX_PEOPLE
    for image in set(found.image):
        scores = sorted(r["score"] for r in many if r["image_id"] == truth.image_ids[image])
        np.testing.assert_array_equal(found.scores[found.image == image], scores[::-1][:MAX_PEOPLE])
