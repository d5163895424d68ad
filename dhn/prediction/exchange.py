"""Predictions in the formats of other tools: COCO results, OpenPose, MOTChallenge, YOLO labels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import write_json, written_whole
from dhn.data.joints import DEFAULT_SIGMA, JointSet, flip_from_names
from dhn.inference.people import People
from dhn.media.sources import Source
from dhn.prediction.sinks import Frame, ImageSink, Run, TextFile

# OpenPose's BODY_25, by the names of COCO and CrowdPose. A neck and a middle of the hips that the
# network does not have are computed.
_BODY_25_NAMES = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist", "mid_hip", "right_hip", "right_knee"),
    *("right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye"),
    *("right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
)
_BODY_25_LIMBS = (
    *((1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11)),
    *((8, 12), (12, 13), (13, 14), (1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (14, 19)),
    *((19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
)
BODY_25 = JointSet(
    name="body_25",
    names=_BODY_25_NAMES,
    skeleton=_BODY_25_LIMBS,
    flip=flip_from_names(_BODY_25_NAMES),
    sigmas=(DEFAULT_SIGMA,) * len(_BODY_25_NAMES),
)
_MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
_OTHER_OPENPOSE_KEYS = (
    *("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"),
    *("pose_keypoints_3d", "face_keypoints_3d", "hand_left_keypoints_3d"),
    "hand_right_keypoints_3d",
)


def coco_image_ids(sources: Sequence[Source]) -> dict[Source, int] | None:
    """The ids that COCO gives its images, which are their file names: 000000397133.jpg is 397133.

    Returns:
        the ids; None where the sources are not images with such names, each of another number.
    """
    ids = {s: int(s.stem) for s in sources if s.stem.isdecimal() and not s.is_video}
    whole = len(ids) == len(sources) and len(set(ids.values())) == len(ids)
    return ids if whole else None


class CocoResults(TextFile):
    """A list of COCO results, for pycocotools and `dhn eval --results`.

    `image_id` is the number that is the image's file name, or, if not all are numbers, counts the
    images and frames from 1 in the order of the sources. `file_name` stands beside it.
    """

    def __init__(self, path: Path, run: Run) -> None:
        super().__init__(path, run)
        self._ids = coco_image_ids(run.sources)
        self._separator = ""
        self._count = 0

    def begin(self) -> str:
        return "[\n"

    def write(self, frame: Frame, people: People) -> None:
        self._count += 1
        id = self._ids[frame.source] if self._ids else self._count
        text = ""
        for result in people.to_coco(id):
            result["file_name"] = frame.source.path
            if frame.index is not None:
                result["frame"] = frame.index
            text += self._separator + json.dumps(result, allow_nan=False)
            self._separator = ",\n"
        self.append(text)

    def end(self) -> str:
        return "\n]\n"


class MotText(TextFile):
    """MOTChallenge's lines: frame (from 1), id, left, top, width, height, score, -1, -1, -1."""

    def write(self, frame: Frame, people: People) -> None:
        assert frame.index is not None
        ids = _ids(people)
        self.append(
            "".join(
                f"{frame.index + 1},{id},{left:.2f},{top:.2f},{width:.2f},{height:.2f},"
                f"{score:.4f},-1,-1,-1\n"
                for id, (left, top, width, height), score in zip(
                    ids, people.boxes, people.scores, strict=True
                )
            )
        )


class OpenPoseFiles(ImageSink):
    """A file for each image or frame, `NAME_keypoints.json`, with OpenPose's BODY_25 joints."""

    def write(self, frame: Frame, people: People) -> None:
        poses = body_25(people)
        content = {
            "version": 1.3,
            "people": [
                {"person_id": [id], "pose_keypoints_2d": pose.ravel().tolist()}
                | {key: [] for key in _OTHER_OPENPOSE_KEYS}
                for id, pose in zip(_ids(people), poses.astype(float).round(3), strict=True)
            ],
        }
        write_json(_frame_file(self.path, frame, "_keypoints.json", digits=12), content)


def _ids(people: People) -> list[int]:
    """Everybody's id; -1 for none, as other tools have it."""
    if people.ids is None:
        return [-1] * len(people)
    return np.where(people.ids > 0, people.ids, -1).tolist()


def body_25(people: People) -> np.ndarray:
    """The joints in OpenPose's order, float32 [P, 25, 3]; zeros where missing, as the feet are."""
    poses = with_joints(people, BODY_25).keypoints.copy()
    names = people.joint_names
    for middle, sides in _MIDDLES.items():
        if middle not in names:
            k = BODY_25.names.index(middle)
            pair = people.keypoints[:, [names.index(side) for side in sides]]
            both = (pair[..., 2] > 0).all(1)
            poses[both, k, :2] = pair[both, :, :2].mean(1)
            poses[both, k, 2] = pair[both, :, 2].min(1)
    return poses


def with_joints(people: People, joints: JointSet) -> People:
    """The same people with other joints: those of equal names; all others are missing."""
    keypoints = np.zeros((len(people), len(joints), 3), np.float32)
    refined = np.zeros(keypoints.shape[:2], bool)
    for k, name in enumerate(joints.names):
        if name in people.joint_names:
            j = people.joint_names.index(name)
            keypoints[:, k], refined[:, k] = people.keypoints[:, j], people.refined[:, j]
    return replace(people, keypoints=keypoints, refined=refined, joints=joints)


def check_body_25(joints: JointSet, path: Path) -> None:
    """Raises DhnError where OpenPose's joints cannot be made of these."""
    lacking = {part for pair in _MIDDLES.values() for part in pair} - {*joints.names}
    if lacking:
        raise DhnError(
            f"{path}: OpenPose's format needs joints named as COCO names them, and the network has "
            f"no {min(lacking)}; take another output"
        )


class YoloLabels(ImageSink):
    """A label file for each image or frame in the format of YOLO-pose data sets.

    A line per person: class 0, box centre and size, then x, y and visibility of each joint: 2
    where it was seen, 1 where it was refined, 0 where it is missing or outside the image. All
    lengths are divided by the image's width or height.
    """

    def write(self, frame: Frame, people: People) -> None:
        size = np.array(frame.size)
        low = np.clip(people.boxes[:, :2] / size, 0, 1)
        high = np.clip((people.boxes[:, :2] + people.boxes[:, 2:]) / size, 0, 1)
        boxes = np.concatenate([(low + high) / 2, high - low], 1)
        xy = people.keypoints[..., :2] / size
        there = (people.keypoints[..., 2] > 0) & (xy >= 0).all(-1) & (xy <= 1).all(-1)
        visibility = there * (2 - people.refined)
        joints = np.dstack([xy * there[..., None], visibility])
        lines = (
            " ".join(["0", *(f"{v:.6f}" for v in box)])
            + "".join(f" {x:.6f} {y:.6f} {v:.0f}" for x, y, v in person)
            for box, person in zip(boxes, joints, strict=True)
        )
        with written_whole(_frame_file(self.path, frame, ".txt", digits=6)) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _frame_file(path: Path, frame: Frame, ending: str, digits: int) -> Path:
    """The file of an image, or of a frame of a video, which has its number before the ending."""
    if frame.index is None:
        return path
    return path.with_name(f"{path.name.removesuffix(ending)}_{frame.index:0{digits}d}{ending}")
