"""The files that other programs read: each is checked against its own tool or definition."""

import contextlib
import csv
import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import dhn
from assertions import complaint
from dhn.data.joints import COCO, CROWDPOSE, JointSet
from dhn.data.yolo import read_yolo
from dhn.inference.people import People
from dhn.media.images import write_image
from dhn.media.sources import Source
from dhn.prediction.documents import SCHEMA, JsonDocument, JsonLines
from dhn.prediction.exchange import body_25
from dhn.prediction.outputs import Outputs
from dhn.prediction.sinks import Frame, Run

PHOTO, OTHER, CLIP = (Source(name, name) for name in ("7.png", "12.png", "clip.mp4"))
SIZE = (80, 60)


def some_people(P, joints=CROWDPOSE, seed=0):
    random = np.random.default_rng(seed)
    keypoints = (random.random((P, len(joints), 3)) * (*SIZE, 0.9) + (0, 0, 0.1)).astype(np.float32)
    keypoints[random.random((P, len(joints))) < 0.3] = 0
    refined = (keypoints[..., 2] > 0) & (random.random((P, len(joints))) < 0.4)
    return People(keypoints, random.random(P).astype(np.float32), joints, refined=refined)


def frames(joints=CROWDPOSE):
    """Two images and two frames of a video, with their people."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    places = [(PHOTO, None), (OTHER, None), (CLIP, 0), (CLIP, 5)]
    for seed, (source, index) in enumerate(places):
        time = Fraction(index or 0, 25)
        yield Frame(source, image, index, time, Fraction(25), SIZE), some_people(seed, joints, seed)


def written(outputs, sources=(PHOTO, OTHER, CLIP), joints=CROWDPOSE):
    """Writes `frames` as `dhn predict` does; returns them."""
    run = Run("best.pt", {"conf": 0.1, "flip": False}, joints, sources)
    done = [(frame, people) for frame, people in frames(joints) if frame.source in sources]
    outputs.check(sources)
    outputs.check_joints(joints)
    with contextlib.ExitStack() as stack:
        sinks = {source: outputs.source_sinks(source, run) for source in sources}
        shared = outputs.shared_sinks(run)
        for sink in (*shared, *(sink for own in sinks.values() for sink in own)):
            stack.callback(sink.close)
        for frame, people in done:
            for sink in (*sinks[frame.source], *shared):
                sink.write(frame, people)
    return done


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("sources", [(PHOTO,), (CLIP,), (PHOTO, OTHER, CLIP)])
def test_both_json_forms_have_one_schema(sources):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.check_schema(validator.schema)
    done = written(Outputs(json=Path("out.json")), sources)
    written(Outputs(json=Path("out.jsonl")), sources)
    document = json.loads(Path("out.json").read_text())
    header, *lines = (json.loads(line) for line in Path("out.jsonl").read_text().splitlines())
    for value in (document, header, *lines):
        validator.validate(value)
    assert document == header | {"images": lines}
    assert header["dhn"] == dhn.__version__
    assert header["joint_names"] == list(CROWDPOSE.names)
    assert [tuple(limb) for limb in header["skeleton"]] == list(CROWDPOSE.skeleton)
    assert header["sources"] == [source.path for source in sources]
    for (frame, people), line in zip(done, lines, strict=True):
        assert (line["source"], line["frame"]) == (frame.source.path, frame.index)
        assert line["time"] == (None if frame.index is None else frame.index / 25)
        assert (line["width"], line["height"]) == SIZE
        assert line["predictions"] == people.to_dict()["predictions"]


@pytest.mark.parametrize(
    "damage",
    [
        {"images": [{"source": "a"}]},
        {"joint_names": []},
        {"format": "other"},
        {"more": 1},
        {"skeleton": [[1]]},
    ],
)
def test_the_schema_refuses_other_documents(damage):
    jsonschema = pytest.importorskip("jsonschema")
    written(Outputs(json=Path("out.json")))
    document = json.loads(Path("out.json").read_text()) | damage
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)


def test_json_without_a_result_and_cut_off_by_an_error():
    run = Run("best.pt", {}, CROWDPOSE, [PHOTO])
    for sink in (JsonDocument(Path("none.json"), run), JsonLines(Path("none.jsonl"), run)):
        sink.close()
    assert not list(Path().iterdir())
    early = JsonDocument(Path("early.json"), run)
    early.write(*next(frames()))
    early.close()
    assert len(json.loads(Path("early.json").read_text())["images"]) == 1


@pytest.mark.parametrize("kind", ["json", "csv", "coco", "mot"])
def test_standard_output(kind, capsys):
    sources = (CLIP,) if kind == "mot" else (PHOTO, OTHER, CLIP)
    suffix = {"json": ".jsonl", "csv": ".csv", "coco": ".json", "mot": ".txt"}[kind]
    written(Outputs(**{kind: Path(f"out{suffix}")}), sources)
    assert capsys.readouterr().out == ""
    written(Outputs(**{kind: Path("-")}), sources)
    assert capsys.readouterr().out == Path(f"out{suffix}").read_text()


def test_coco_results():
    done = written(Outputs(coco=Path("out.json")), (PHOTO, OTHER))
    results = json.loads(Path("out.json").read_text())
    expected = [r for frame, people in done for r in people.to_coco(int(frame.source.stem))]
    for result in results:
        assert result.pop("file_name") == f"{result['image_id']}.png"
    assert results == expected


def test_coco_results_of_what_has_no_number_are_counted():
    pycocotools = pytest.importorskip("pycocotools.coco")
    done = written(Outputs(coco=Path("out.json")))
    truth = pycocotools.COCO()
    truth.dataset = {"images": [{"id": k + 1} for k in range(4)], "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes("out.json")
    counts = [len(loaded.getAnnIds(imgIds=[k + 1])) for k in range(4)]
    assert counts == [len(people) for _, people in done]
    assert [a.get("frame") for a in loaded.anns.values()][-1] == 5


def test_nobody_is_an_empty_list_of_results():
    written(Outputs(coco=Path("out.json")), (PHOTO,))
    assert json.loads(Path("out.json").read_text()) == []


def test_mot_text():
    done = written(Outputs(mot=Path("out.txt")), (CLIP,))
    rows = [list(map(float, row)) for row in csv.reader(Path("out.txt").read_text().splitlines())]
    boxes = [
        (frame.index + 1, person)
        for frame, people in done
        for person in zip(people.boxes, people.scores, strict=True)
    ]
    for row, (number, (box, score)) in zip(rows, boxes, strict=True):
        assert len(row) == 10
        assert row[:2] == [number, -1]
        assert row[2:6] == pytest.approx(box, abs=0.006)
        assert row[6] == pytest.approx(score, abs=1e-4)
        assert row[7:] == [-1, -1, -1]
    written(Outputs(mot=Path("folder")), (CLIP,))
    assert Path("folder/clip.txt").read_text() == Path("out.txt").read_text()


@pytest.mark.parametrize("joints", [CROWDPOSE, COCO], ids=["crowdpose", "coco"])
def test_openpose_folders(joints):
    done = written(Outputs(openpose=Path("out")), joints=joints)
    names = ["12_keypoints.json", "7_keypoints.json"]
    names += [f"clip_{number:012d}_keypoints.json" for number in (0, 5)]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    content = json.loads(Path("out/clip_000000000005_keypoints.json").read_text())
    people = done[-1][1]
    assert len(content["people"]) == len(people) == 3
    for person, pose in zip(content["people"], people.keypoints, strict=True):
        points = np.reshape(person["pose_keypoints_2d"], (25, 3))
        for k, name in ((3, "right_elbow"), (7, "left_wrist"), (11, "right_ankle")):
            assert points[k] == pytest.approx(pose[joints.names.index(name)], abs=1e-3)
        hips = pose[[joints.names.index(f"{side}_hip") for side in ("left", "right")]]
        middle = [*hips[:, :2].mean(0), hips[:, 2].min()] if hips[:, 2].all() else [0, 0, 0]
        assert points[8] == pytest.approx(middle, abs=1e-3)
        if joints is CROWDPOSE:
            assert points[1] == pytest.approx(pose[joints.names.index("neck")], abs=1e-3)
        else:
            assert points[0] == pytest.approx(pose[0], abs=1e-3)
        assert (points[19:] == 0).all()


def test_openpose_needs_shoulders_and_hips():
    names = ("head", "tail")
    animal = JointSet("animal", names, ((0, 1),), (0, 1), (0.1, 0.1))
    assert "has no left_hip" in complaint(written, Outputs(openpose=Path("out")), joints=animal)
    assert body_25(some_people(0)).shape == (0, 25, 3)


def test_yolo_labels_are_a_data_set(tmp_path):
    """`dhn data` reads them back."""
    done = written(Outputs(yolo=tmp_path / "labels"))
    assert (tmp_path / "labels/clip_000005.txt").is_file()
    for frame, _ in done[:2]:
        write_image(tmp_path / "images" / frame.source.name, frame.image)
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\ntrain: images\nnames: [person]\nkpt_shape: [14, 3]\n"
    )
    file, _ = read_yolo(tmp_path / "data.yaml", "train")
    by_name = {image["file_name"]: image["id"] for image in file.raw["images"]}
    for frame, people in done[:2]:
        (id,) = (id for name, id in by_name.items() if Path(name).name == frame.source.name)
        read = [a for a in file.raw["annotations"] if a["image_id"] == id]
        assert len(read) == len(people)
        for annotation, pose, states in zip(read, people.keypoints, people.states, strict=True):
            joints = np.reshape(annotation["keypoints"], (14, 3))
            seen = {"seen": 2, "refined": 1, "missing": 0}
            assert joints[:, 2].tolist() == [seen[state] for state in states]
            np.testing.assert_allclose(joints[:, :2], pose[:, :2] * (pose[:, 2:] > 0), atol=0.02)


@pytest.mark.parametrize(
    ("kind", "path", "why"),
    [
        ("json", "out.txt", "a .json or .jsonl file, or a folder"),
        ("json", "out.csv", "a .json or .jsonl file"),
        ("csv", "out.json", "a .csv file"),
        ("coco", "out.jsonl", "a .json file"),
        ("mot", "out.csv", "a .txt file, or a folder"),
        ("video", "out.avi", "an .mp4 file, or a folder"),
        ("images", "photo.jpg", "name a folder"),
        ("openpose", "out.json", "name a folder"),
        ("yolo", "labels.txt", "name a folder"),
        ("images", "-", "cannot go to standard output"),
        ("video", "-", "cannot go to standard output"),
    ],
)
def test_a_path_of_another_kind_is_refused(kind, path, why):
    message = complaint(Outputs(**{kind: Path(path)}).check, [PHOTO, CLIP])
    assert message.startswith(f"{path}: ")
    assert why in message
    assert not list(Path().iterdir())


def test_a_folder_may_have_a_dot_once_it_is_there():
    Path("v1.2").mkdir()
    written(Outputs(json=Path("v1.2")), (PHOTO,))
    assert Path("v1.2/7.png.predictions.json").is_file()


def test_one_output_only_goes_to_standard_output():
    assert "one output only" in complaint(Outputs(json=Path("-"), csv=Path("-")).check, [PHOTO])


@pytest.mark.parametrize("kind", ["openpose", "yolo"])
def test_two_sources_do_not_share_a_file(kind):
    twins = [Source("7.png", "7.png"), Source("7.jpg", "7.jpg")]
    assert "named for two outputs" in complaint(Outputs(**{kind: Path("out")}).check, twins)
