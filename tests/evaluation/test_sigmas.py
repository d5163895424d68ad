import json

import numpy as np
import pytest
from click.testing import CliRunner

from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.joints import CROWDPOSE
from dhn.evaluation.sigmas import estimate_sigmas
from planted import annotated, crowd_set

SIGMAS = np.linspace(0.02, 0.08, 14)


def labelled_again(folder, raw, annotators, *, seed=0):
    """The people as several annotators label them, in another order, with a spread per joint."""
    rng = np.random.default_rng(seed)
    truth = annotated(raw)
    areas = np.array([0.53 * p["bbox"][2] * p["bbox"][3] for p in raw["annotations"]])
    # d^2 is of two coordinates, each of which has half the variance.
    spread = np.sqrt(areas)[:, None] * SIGMAS / np.sqrt(2)
    files = []
    for k in range(annotators):
        xy = truth[..., :2] + rng.normal(0, 1, (*spread.shape, 2)) * spread[..., None]
        keypoints = np.concatenate([xy, truth[..., 2:]], -1)
        people = [
            person | {"keypoints": own.ravel().tolist()}
            for person, own in zip(raw["annotations"], keypoints, strict=True)
        ]
        rng.shuffle(people)
        people = [person | {"id": id} for id, person in enumerate(people, 1)]
        files.append(folder / f"{k}.json")
        files[-1].write_text(json.dumps(raw | {"annotations": people}))
    return files


@pytest.mark.parametrize("annotators", [2, 4])
def test_the_spread_that_was_planted_comes_out(tmp_path, annotators):
    raw = crowd_set(200, 4)
    found = estimate_sigmas(labelled_again(tmp_path, raw, annotators))
    assert [row.name for row in found] == list(CROWDPOSE.names)
    assert [row.given for row in found] == list(CROWDPOSE.sigmas)
    assert [row.people for row in found] == [800] * 14
    np.testing.assert_allclose([row.sigma for row in found], SIGMAS, rtol=0.1)


def test_joints_and_people_whom_not_everybody_labelled(tmp_path):
    files = labelled_again(tmp_path, crowd_set(6, 2), 2)
    second = json.loads(files[1].read_text())
    for person in second["annotations"]:
        person["keypoints"][2] = 0  # the first joint of everybody
    second["annotations"] = second["annotations"][:5]
    files[1].write_text(json.dumps(second))
    found = estimate_sigmas(files)
    assert (found[0].people, found[0].sigma) == (0, None)
    assert {row.people for row in found[1:]} == {5}


def test_command(tmp_path):
    files = labelled_again(tmp_path, crowd_set(9, 2), 2)
    args = ["data", "sigmas", *map(str, files), "--json-output", str(tmp_path / "s.json")]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "s.json").read_text())
    (line,) = (line for line in result.stdout.splitlines() if "left_elbow" in line)
    assert f"{rows[2]['sigma']:.4f}" in line
    assert result.stdout.splitlines()[-1].startswith('"sigmas": [')


def test_what_does_not_belong_together(tmp_path):
    (file,) = labelled_again(tmp_path, crowd_set(3), 1)
    with pytest.raises(DhnError, match="two files"):
        estimate_sigmas([file])
    other = tmp_path / "other.json"
    other.write_text(json.dumps(crowd_set(4)))
    with pytest.raises(DhnError, match=r"other\.json: its images are not"):
        estimate_sigmas([file, other])
