"""`dhn convert`: round trips between the formats, and what it says of files that it cannot read."""

import contextlib
import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.commands import convert as command
from dhn.data.joints import COCO, CROWDPOSE
from dhn.inference.people import People
from dhn.media.images import write_image
from dhn.media.video import VideoWriter
from dhn.prediction.convert import FORMATS, convert, read, write
from dhn.prediction.exchange import BODY_25, body_25, with_joints
from dhn.prediction.recording import Place, Recording, in_order, read_json
from dhn.prediction.sleap import _ids

SIZE = (80, 60)


def some_people(P, joints, seed, ids=False):
    random = np.random.default_rng(seed)
    keypoints = (random.random((P, len(joints), 3)) * (*SIZE, 0.9) + (0, 0, 0.1)).astype(np.float32)
    keypoints[random.random((P, len(joints))) < 0.3] = 0
    refined = (keypoints[..., 2] > 0) & (random.random((P, len(joints))) < 0.4)
    scores = random.random(P).astype(np.float32)
    numbers = random.permutation(P) + 1 if ids else None
    return People(keypoints, scores, joints, refined=refined, ids=numbers)


def recording(joints=COCO, videos=True):
    places = [Place("7.png", size=SIZE), Place("12.png", size=SIZE)]
    if videos:
        places += [Place("clip.mp4", k, k / 25, SIZE) for k in (0, 5)]
    results = [
        (p, some_people(1 + k, joints, k, ids=p.index is not None)) for k, p in enumerate(places)
    ]
    return Recording(joints, in_order(results), "best.pt", {"flip": True})


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def same_people(got, expected, *, atol=0.0, scores=True, states=True):
    assert len(got.results) == len(expected.results)
    for (frame, people), (place, wanted) in zip(got.results, expected.results, strict=True):
        assert frame.index == place.index
        np.testing.assert_allclose(people.keypoints, wanted.keypoints, atol=atol)
        if scores:
            np.testing.assert_allclose(people.scores, wanted.scores, atol=atol)
        if states:
            np.testing.assert_array_equal(people.refined, wanted.refined)
        ids = np.zeros(len(people)) if people.ids is None else people.ids
        assert ids.tolist() == ([0] * len(wanted) if wanted.ids is None else wanted.ids.tolist())


def test_json_lines_and_table_hold_the_same():
    before = recording()
    write(before, Path("a.json"), "json")
    run("a.json", "b.jsonl")
    run("b.jsonl", "c.json")
    assert Path("a.json").read_bytes() == Path("c.json").read_bytes()
    same_people(read_json(Path("b.jsonl")), before, atol=6e-5)
    after = read_json(Path("c.json"))
    assert (after.weights, after.settings, after.joints) == ("best.pt", {"flip": True}, COCO)
    assert [frame.size for frame, _ in after.results] == [SIZE] * 4
    assert after.results[-1][0].time == Fraction(1, 5)

    run("a.json", "d.csv")
    run("d.csv", "e.jsonl")
    run("e.jsonl", "f.csv")
    assert Path("d.csv").read_bytes() == Path("f.csv").read_bytes()
    same_people(read(Path("d.csv")), before, atol=6e-5)


def test_joints_of_ones_own_survive():
    joints = with_joints(some_people(1, COCO, 0), COCO).joints
    own = recording(joints)
    document = json.loads(_written(own))
    document["joint_names"] = [f"part{j}" for j in range(17)]
    document["skeleton"] = [[0, 1], [3, 2]]
    Path("own.json").write_text(json.dumps(document))
    run("own.json", "lines.jsonl")
    after = read_json(Path("lines.jsonl"))
    assert after.joints.names == tuple(document["joint_names"])
    assert after.joints.skeleton == ((0, 1), (3, 2))


def _written(some):
    write(some, Path("some.json"), "json")
    return Path("some.json").read_text()


@pytest.mark.parametrize("joints", [COCO, CROWDPOSE], ids=lambda joints: joints.name)
def test_coco_results_there_and_back(joints):
    before = recording(joints, videos=False)
    write(before, Path("coco.json"), "coco")
    run("coco.json", "people.json")
    same_people(read_json(Path("people.json")), before, atol=6e-5, states=False)
    run("coco.json", "again.json", "--to", "coco")
    assert json.loads(Path("again.json").read_text()) == json.loads(Path("coco.json").read_text())

    with_videos = recording(joints)
    write(with_videos, Path("videos.json"), "coco")
    same_people(read(Path("videos.json")), with_videos, states=False)


def test_coco_results_of_another_program_and_their_annotations():
    names = ["nose", "tail"]
    category = {"id": 1, "name": "dog", "keypoints": names, "skeleton": [[1, 2]]}
    image = {"id": 5, "file_name": "dog.png", "width": 80, "height": 60}
    truth = {"images": [image], "annotations": [], "categories": [category]}
    results = [{"image_id": 5, "category_id": 1, "keypoints": [1, 2, 0.5] * 2, "score": 0.7}]
    Path("truth.json").write_text(json.dumps(truth))
    Path("dogs.json").write_text(json.dumps(results))
    assert "--annotations" in run("dogs.json", "out.json", code=1).output
    run("dogs.json", "out.json", "--annotations", "truth.json")
    after = read_json(Path("out.json"))
    ((frame, people),) = after.results
    assert (frame.source.path, frame.size, after.joints.names) == (
        "dog.png",
        SIZE,
        ("nose", "tail"),
    )
    assert people.keypoints.tolist() == [[[1, 2, 0.5]] * 2]


@pytest.mark.parametrize("joints", [COCO, BODY_25], ids=lambda joints: joints.name)
def test_openpose_folders_there_and_back(joints):
    before = recording(joints)
    write(before, Path("folder"), "openpose")
    after = read(Path("folder"))
    assert after.joints == BODY_25
    # Files come in the order of their names, sources without suffix.
    by_name = {(f.source.stem, f.index): p for f, p in before.results}
    assert len(after.results) == 4
    for frame, people in after.results:
        wanted = by_name[frame.source.path, frame.index]
        np.testing.assert_allclose(people.keypoints, body_25(wanted), atol=6e-4)
        ids = [0] * len(people) if people.ids is None else people.ids.tolist()
        assert ids == ([0] * len(wanted) if wanted.ids is None else wanted.ids.tolist())
    run("folder", "again", "--to", "openpose")
    for path in Path("folder").iterdir():
        assert (Path("again") / path.name).read_text() == path.read_text()

    run("folder", "coco.json", "--joints", "coco", "--to", "coco")
    assert {len(r["keypoints"]) for r in json.loads(Path("coco.json").read_text())} == {51}


def test_yolo_labels_there_and_back():
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    Path("media").mkdir()
    for name in ("7.png", "12.png"):
        write_image(Path("media") / name, pixels)
    writer = VideoWriter(Path("media/clip.mp4"), Fraction(25), SIZE)
    writer.write(pixels, Fraction(0))
    writer.close()
    before = recording()
    write(before, Path("labels"), "yolo")
    assert "--images" in run("labels", "out.json", code=1).output
    run("labels", "out.json", "--images", "media")
    after = read_json(Path("out.json"))
    by_name = {(f.source.stem, f.index): p for f, p in before.results}
    assert len(after.results) == 4
    for frame, people in after.results:
        wanted = by_name[Path(frame.source.path).stem, frame.index]
        found = wanted.keypoints[..., 2] > 0
        assert frame.size == SIZE
        np.testing.assert_array_equal(people.keypoints[..., 2], found)
        np.testing.assert_allclose(
            people.keypoints[found, :2], wanted.keypoints[found, :2], atol=1e-3
        )
        np.testing.assert_array_equal(people.refined, wanted.refined)
    run("labels", "again", "--to", "yolo", "--images", "media")
    for path in Path("labels").iterdir():
        numbers = (np.loadtxt(folder / path.name) for folder in (Path("labels"), Path("again")))
        np.testing.assert_allclose(*numbers, atol=2e-6)

    run("out.json", "table.csv")  # which knows no sizes
    assert "--images" in run("table.csv", "third", "--to", "yolo", code=1).output
    run("table.csv", "third", "--to", "yolo", "--images", "media")
    assert sorted(p.name for p in Path("third").iterdir()) == [
        *("12.txt", "7.txt", "clip_000000.txt", "clip_000005.txt"),
    ]


def test_mot_text_is_only_written():
    write(recording(), Path("a.json"), "json")
    run("a.json", "boxes.txt")
    rows = [line.split(",") for line in Path("boxes.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["1"] * 3 + ["6"] * 4
    assert "boxes without joints" in run("boxes.txt", "b.json", code=1).output


def test_ids_are_corrected_and_one_person_is_chosen():
    write(recording(), Path("a.json"), "json")
    Path("fixes.csv").write_text("action,id,other,first\nsplit,2,9,5\n")
    run("a.json", "b.jsonl", "--ids", "fixes.csv", "--person", "9")
    after = read_json(Path("b.jsonl"))
    assert [len(people) for _, people in after.results] == [0, 0, 0, 1]
    before = recording().results[-1][1]
    (kept,) = after.results[-1][1].keypoints
    np.testing.assert_allclose(kept, before.keypoints[before.ids == 2][0], atol=6e-5)
    assert json.loads(Path("b.jsonl").read_text().splitlines()[-1])["predictions"][0]["id"] == 9


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", "{}", "is no JSON of dhn predict (lacks 'format')"),
        ("a.json", "[]", "is no list of COCO results"),
        ("a.json", "[1]", "is no list of COCO results"),
        ("a.jsonl", "", "is no JSON of dhn predict"),
        ("a.jsonl", "{", "is no JSON of dhn predict"),
        ("a.csv", "a,b\n", "it lacks columns"),
        ("a.xyz", "", "say which it is with --from"),
        ("a.json", None, "No such file"),
        ("a.csv", None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(name, content, complaint):
    if content is not None:
        Path(name).write_text(content)
    result = run(name, "out.csv" if name != "a.csv" else "out.json", code=1)
    assert result.output.startswith(f"Error: {name}")
    assert complaint in result.output
    assert result.output.count("\n") == 1
    assert not Path("out.csv").exists()


def test_a_damaged_document_is_refused():
    document = json.loads(_written(recording()))
    for damage in (
        lambda d: d["images"][0].pop("source"),
        lambda d: d["images"][0]["predictions"][0]["keypoints"].pop(),
        lambda d: d["images"][0]["predictions"][0].update(score="much"),
        lambda d: d.update(joint_names="nose"),
        lambda d: d.update(skeleton=[[1]]),
    ):
        broken = json.loads(json.dumps(document))
        damage(broken)
        Path("broken.json").write_text(json.dumps(broken))
        assert run("broken.json", "out.csv", code=1).output.startswith("Error: broken.json")


ODD = [None, True, -1, 1e300, float("nan"), 2**70, "x", "", "a\nb", [], {}, [1], {"a": 1}]


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_damage_ends_in_a_traceback(data):
    kind = data.draw(st.sampled_from(["json", "coco", "openpose"]))
    before = recording(videos=False)
    write(before, Path(f"{kind}.json") if kind != "openpose" else Path("in"), kind)
    path = Path(f"{kind}.json") if kind != "openpose" else Path("in/7_keypoints.json")
    document = json.loads(path.read_text())
    value = document
    while True:  # some place in the document
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from([*keys]))
        if not isinstance(value[key], dict | list) or not value[key] or data.draw(st.booleans()):
            break
        value = value[key]
    if data.draw(st.booleans()):
        value[key] = data.draw(st.sampled_from(ODD))
    else:
        del value[key]
    path.write_text(json.dumps(document))
    with contextlib.suppress(DhnError):
        convert(Path("in") if kind == "openpose" else path, Path("out.json"))


def test_outputs_that_cannot_be_are_refused():
    write(recording(), Path("a.json"), "json")
    assert "--to openpose" in run("a.json", "folder", code=1).output
    assert "must end with .jsonl" in run("a.json", "b.txt", "--to", "jsonl", code=1).output
    assert "can only be read" in run("a.json", "b.csv", "--to", "dlc", code=1).output
    assert "a.json" in run("a.json", "a.json", code=1).output  # it would overwrite its source
    write(recording(videos=False), Path("images.json"), "json")
    assert "no video" in run("images.json", "mot.txt", code=1).output


def test_standard_output_takes_lines():
    write(recording(), Path("a.json"), "json")
    result = run("a.json", "-", "--to", "json")
    header, *frames = (json.loads(line) for line in result.stdout.splitlines())
    assert (header["weights"], len(frames)) == ("best.pt", 4)


def test_the_command_knows_all_formats():
    assert command._FORMATS == FORMATS


@pytest.mark.parametrize("suffix", ["slp", "nwb"])
def test_without_sleap_io_one_line_says_so(monkeypatch, suffix):
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    write(recording(), Path("a.json"), "json")
    line = run("a.json", f"b.{suffix}", code=1).output
    assert line == f"Error: b.{suffix}: needs sleap-io: pip install sleap-io\n"


@pytest.mark.parametrize("suffix", ["slp", "nwb"])
def test_sleap_and_nwb_there_and_back(suffix):
    pytest.importorskip("sleap_io", reason="needs sleap-io")
    before = recording()
    write(before, Path("a.json"), "json")
    if suffix == "nwb":  # which has tracks only
        assert "somebody has no id" in run("a.json", "b.nwb", code=1).output
        before = replace(before, results=before.results[2:])
        write(before, Path("a.json"), "json")
    run("a.json", f"b.{suffix}")
    after = read(Path(f"b.{suffix}"))
    assert after.joints.names == COCO.names
    found = [(frame, people) for frame, people in after.results if len(people)]
    assert len(found) == len(before.results)
    for (frame, people), (place, wanted) in zip(found, before.results, strict=True):
        assert Path(frame.source.path).name == place.source.path
        assert suffix == "nwb" or frame.index == place.index
        if suffix == "slp":
            ids = None if wanted.ids is None else wanted.ids.tolist()
            assert (None if people.ids is None else people.ids.tolist()) == ids
        else:  # sleap-io reads tracks of NWB files in the order of their names, without these
            wanted = wanted[np.argsort(wanted.ids)]
        np.testing.assert_allclose(people.keypoints, wanted.keypoints, atol=1e-3)
        if suffix == "slp":  # sleap-io computes scores anew from NWB files
            np.testing.assert_allclose(people.scores, wanted.scores, atol=1e-3)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["track3", "track1"], [3, 1]),
        (["track_0", "track_1"], [1, 2]),
        (["mouse", "cat2"], [1, 2]),
        (["a7", "b7"], [1, 2]),
        ([], []),
    ],
)
def test_ids_of_tracks(names, ids):
    assert list(_ids(names).values()) == ids


def test_deeplabcut_is_read():
    pytest.importorskip("sleap_io", reason="needs sleap-io")
    Path("dlc.csv").write_text(
        "scorer,me,me,me,me\n"
        "bodyparts,nose,nose,tail,tail\n"
        "coords,x,y,x,y\n"
        "labeled-data/clip/img0003.png,1.5,2.5,,\n"
    )
    assert "must lie beside it" in run("dlc.csv", "out.json", code=1).output
    write_image("labeled-data/clip/img0003.png", np.zeros((60, 80, 3), np.uint8))
    run("dlc.csv", "out.json")
    ((_, people),) = read_json(Path("out.json")).results
    assert people.joint_names == ("nose", "tail")
    assert people.keypoints.tolist() == [[[1.5, 2.5, 1.0], [0, 0, 0]]]
