import json
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from coco_sets import make_set, results_of
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.commands.eval import print_table
from dhn.data.annotations import load_annotations
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation.evaluate import evaluate, predict_dataset
from dhn.inference.people import People
from tiny_networks import save_network

KEYS = ["AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_easy", "AP_medium", "AP_hard"]


class Oracle:
    """Predictor that reads an image's id from its pixels and answers with annotated people."""

    source = "oracle"

    def __init__(self, results, joints=CROWDPOSE):
        self.joints = joints
        self.timing = types.SimpleNamespace(images=0, network_seconds=0.0, decode_seconds=0.0)
        self.results = results
        self.batches = []

    def infer(self, images):
        self.batches.append(len(images))
        self.timing.images += len(images)
        self.timing.network_seconds += 0.012 * len(images)
        self.timing.decode_seconds += 0.001 * len(images)
        return images

    def decoded(self, images):
        return [self._predict(image) for image in images]

    def _predict(self, image):
        assert image.dtype == np.uint8
        assert image.shape == (120, 160, 3)
        people = [r for r in self.results if r["image_id"] == image[0, 0, 0]]
        return People(
            np.array([r["keypoints"] for r in people], np.float32).reshape(-1, len(self.joints), 3),
            np.array([r["score"] for r in people], np.float32),
            self.joints,
        )


@pytest.fixture
def folder(tmp_path):
    """A CrowdPose folder with six images, each painted in its id."""
    (tmp_path / "json").mkdir()
    (tmp_path / "images").mkdir()
    raw = make_set()
    (tmp_path / "json/crowdpose_test.json").write_text(json.dumps(raw))
    for image in raw["images"]:
        pixels = np.full((120, 160, 3), image["id"], np.uint8)
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), pixels)
    return tmp_path


@pytest.fixture
def oracle():
    return Oracle(results_of(make_set()))


def run(*args):
    result = CliRunner().invoke(main, ["eval", *map(str, args)])
    assert "Traceback" not in result.output
    return result


# A network on a data set


def test_the_truth_scores_one(folder, oracle, capsys):
    evaluation = evaluate(oracle, load_annotations(folder))
    assert list(evaluation.stats) == KEYS
    assert list(evaluation.stats.values()) == pytest.approx([1.0] * len(KEYS))
    assert (evaluation.predictions, evaluation.annotations) == ("oracle", folder.name)
    assert (evaluation.images, evaluation.people) == (6, len(make_set()["annotations"]))
    assert evaluation.time == pytest.approx((0.012, 0.001))
    assert evaluation.failures == ()
    assert capsys.readouterr() == ("", "")


def test_results_are_the_same_in_any_batch(folder):
    noisy = results_of(make_set(), noise=3)
    annotations = load_annotations(folder)
    alone, failures = predict_dataset(Oracle(noisy), annotations)
    assert failures == []
    oracle = Oracle(noisy)
    assert predict_dataset(oracle, annotations, batch_size=4) == (alone, [])
    assert oracle.batches == [4, 2]
    assert [r["image_id"] for r in alone] == [r["image_id"] for r in noisy]
    for result, wanted in zip(alone, noisy, strict=True):
        assert result["category_id"] == 1
        assert result["keypoints"] == np.float32(wanted["keypoints"]).tolist()
        assert result["score"] == np.float32(wanted["score"])


def test_saved_predictions_score_the_same_by_themselves(folder):
    noisy = Oracle(results_of(make_set(), noise=8))
    saved, output = folder / "out/predictions.json", folder / "out/stats.json"
    stats = evaluate(noisy, load_annotations(folder), batch_size=2, save_json=saved).stats
    assert 0 < stats["AP"] < 1
    result = run("--results", saved, "--annotations", folder / "json/crowdpose_test.json",
                 "--output", output)  # fmt: skip
    assert result.exit_code == 0
    assert json.loads(output.read_text()) == stats


def test_nobody_found(folder):
    assert set(evaluate(Oracle([]), load_annotations(folder)).stats.values()) == {0.0}


def test_a_network_with_other_joints_is_refused(folder):
    with pytest.raises(DhnError, match=r"oracle: predicts the 17 joints of coco.*14 of crowdpose"):
        predict_dataset(Oracle([], COCO), load_annotations(folder))


def test_no_image_at_all(folder, oracle):
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(DhnError, match="images: none of the 6 images is here"):
        predict_dataset(oracle, load_annotations(folder))


def test_bad_images_are_listed_and_the_rest_goes_on(folder, oracle):
    images = folder / "images"
    (images / "2.png").unlink()
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:-20])
    (images / "4.png").write_text("not an image")
    annotations = load_annotations(folder)
    evaluation = evaluate(oracle, annotations, batch_size=2)
    assert [failure.split(": ")[0] for failure in evaluation.failures] == [
        str(images / f"{i}.png") for i in (2, 3, 4)
    ]
    # Scored as if nobody was found there.
    people = [p for p in annotations.raw["annotations"] if not p["iscrowd"]]
    found = [p for p in people if p["image_id"] not in (2, 3, 4)]
    assert evaluation.stats["AR"] == pytest.approx(len(found) / len(people))


def test_no_image_can_be_read(folder, oracle):
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    evaluation = evaluate(oracle, load_annotations(folder))
    assert len(evaluation.failures) == 6
    assert evaluation.time is None
    assert set(evaluation.stats.values()) == {0.0}


# The command


@pytest.fixture
def loaded(monkeypatch, oracle):
    """The command takes the oracle for a network; lists what it asks `dhn.load` for."""
    calls = []

    def load(checkpoint, **options):
        calls.append((checkpoint, options))
        return oracle

    monkeypatch.setattr("dhn.load", load)
    return calls


def test_command_on_a_network(folder, loaded, oracle):
    result = run("--dataset", folder, "--checkpoint", "w.pt", "--flip", "--input-size", 128,
                 "--no-refine", "-b", 2, "--limit", 3, "--save-json", folder / "p.json",
                 "--output", folder / "stats.json", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    ((weights, options),) = loaded
    given = {"device": "cpu", "flip": True, "input_size": 128, "refine": False}
    assert weights == "w.pt"
    assert options | given == options
    assert oracle.batches == [2, 1]
    assert {r["image_id"] for r in json.loads((folder / "p.json").read_text())} <= {1, 2, 3}
    header, names, values, timing = result.stdout.splitlines()
    people = sum(p["image_id"] <= 3 for p in make_set()["annotations"])
    assert header == f"oracle on {folder.name} ({people} annotated people in 3 images), percent"
    assert names.split() == KEYS
    # AP_hard has no image among the first three.
    assert values.split() == ["100.0"] * 8 + ["-"]
    assert timing == "Time per image: network 12.0 ms, decode 1.0 ms"
    stats = json.loads((folder / "stats.json").read_text())
    assert list(stats.values()) == pytest.approx([1.0] * 8 + [-1.0])


@pytest.mark.usefixtures("loaded")
def test_quiet_command_prints_the_table_alone(folder):
    result = run("--dataset", folder, "-q")
    assert result.exit_code == 0
    names, values = result.output.splitlines()
    assert names.split() == KEYS
    assert values.split() == ["100.0"] * len(KEYS)


@pytest.mark.usefixtures("loaded")
def test_command_on_one_image(folder):
    result = run("--dataset", folder, "--limit", 1)
    assert "(2 annotated people in 1 image), percent" in result.output


@pytest.mark.usefixtures("loaded")
def test_command_with_bad_images_exits_with_1(folder):
    (folder / "images/3.png").write_text("not an image")
    (folder / "images/5.png").write_bytes(b"")
    result = run("--dataset", folder, "--output", folder / "stats.json", "-q")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].split() == KEYS
    one, another, last = result.stderr.splitlines()
    assert one.startswith(f"Error: {folder / 'images/3.png'}: ")
    assert another.startswith(f"Error: {folder / 'images/5.png'}: is empty")
    assert last.startswith("Error: 2 of 6 images could not be read and were scored as if nobody")
    assert 0 < json.loads((folder / "stats.json").read_text())["AR"] < 1


def test_command_without_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_network(tmp_path / "w.pt")
    result = run("--checkpoint", "w.pt")  # a network of CrowdPose's joints
    assert result.exit_code == 1
    assert result.output.startswith("Error: data/crowdpose: has no annotations of CrowdPose")
    assert result.output.count("\n") == 1
    result = run()  # the package's own, which finds those of COCO
    assert result.output.startswith("Weights: people, the small network that dhn brings (")
    assert result.stderr.startswith("Error: data/coco: ")


# Predictions of any system


def test_command_equals_the_official_tool(shared, tmp_path):
    fixtures = shared / "fixtures/evaluation"
    result = run("--results", fixtures / "edge_preds.json", "--dataset", "crowdpose",
                 "--annotations", fixtures / "edge_gt.json",
                 "--output", tmp_path / "stats.json")  # fmt: skip
    assert result.exit_code == 0
    stats = json.loads((tmp_path / "stats.json").read_text())
    expected = json.loads((fixtures / "expected.json").read_text())["sets"]["edge"]["stats"]
    assert list(stats) == KEYS
    for key in KEYS:
        assert stats[key] == pytest.approx(
            expected.get(f"{key}_unrounded", expected[key]), abs=1e-9
        )


def test_scoring_predictions_imports_no_torch(folder):
    (folder / "p.json").write_text(json.dumps(results_of(make_set())))
    program = (
        "import sys; from dhn.cli import main\n"
        "main(['eval', *sys.argv[1:]], standalone_mode=False)\n"
        "assert not {'torch', 'cv2', 'av'} & set(sys.modules)"
    )
    truth = folder / "json/crowdpose_test.json"
    subprocess.run(
        [sys.executable, "-c", program, "--results", folder / "p.json", "--annotations", truth],
        check=True,
    )


def test_dataset_says_whose_ap(folder):
    truth = folder / "json/crowdpose_test.json"
    (folder / "p.json").write_text(json.dumps(results_of(make_set())))
    crowdpose = run("--results", folder / "p.json", "--annotations", truth)
    assert "AP_easy" in crowdpose.output
    coco = run("--results", folder / "p.json", "--annotations", truth, "--dataset", "coco")
    assert "AR_large" in coco.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("[{", "is not JSON"),
        ("{}", "must be a list of results"),
        ("[5]", "result 1: must be an object"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN}]', "result 1: score"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "result 1: keypoints must be 42"),
    ],
)
def test_bad_results_are_one_line(folder, text, message):
    if text is not None:
        (folder / "p.json").write_text(text)
    truth = folder / "json/crowdpose_test.json"
    result = run("--results", folder / "p.json", "--annotations", truth)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {folder / 'p.json'}: {message}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["--results", "p.json"],
        ["--annotations", "gt.json"],
        ["--results", "p.json", "--annotations", "gt.json", "--flip"],
        ["--results", "p.json", "--annotations", "gt.json", "--checkpoint", "w.pt"],
        ["--results", "p.json", "--annotations", "gt.json", "--dataset", "folder"],
        ["--split", "tset"],
        ["--evaluator", "mine"],
        ["--batch-size", "0"],
    ],
)
def test_bad_usage_exits_with_2(args):
    assert run(*args).exit_code == 2


def test_table_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table({"AP": 0.6612, "AP_hard": -1.0})
    out = capsys.readouterr().out
    assert "66.1" in out
    assert "AP hard" in out
    assert "-1" not in out
