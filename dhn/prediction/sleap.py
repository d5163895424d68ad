"""DeepLabCut, NWB and SLEAP, by the package sleap-io."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dhn.base.errors import DhnError, unforeseen
from dhn.base.files import check_regular, written_whole
from dhn.inference.people import People
from dhn.media.formats import IMAGE_SUFFIXES
from dhn.prediction.recording import (
    Place,
    Recording,
    in_order,
    joints_named,
    people_of,
)


def read_sleap(path: Path, kind: str) -> Recording:
    """Reads one skeleton's instances. Joints of instances without scores get 1.

    Args:
        path: the file.
        kind: `slp`, `nwb` or `dlc`.

    Raises:
        DhnError: sleap-io is not installed, or does not read the file, or it holds nobody.
    """
    sio = _sleap_io(path)
    check_regular(path)
    try:
        labels = sio.load_file(str(path), format=kind)
    except Exception as error:  # sleap-io and what it stands on raise many kinds
        raise DhnError(f"{path}: sleap-io cannot read it: {unforeseen(error)}") from error
    if not labels.skeletons:
        raise DhnError(f"{path}: holds no skeleton, so its joints are unknown")
    skeleton = labels.skeletons[0]
    joints = joints_named(skeleton.node_names, path, skeleton.edge_inds)
    ids = _ids([track.name for track in labels.tracks])
    results = []
    for frame in labels.labeled_frames:
        instances = [i for i in frame.instances if i.skeleton is skeleton]
        people = people_of(
            [_points(instance) for instance in instances],
            joints,
            scores=[float(getattr(i, "score", 1.0) or 0.0) for i in instances],
            ids=[ids[i.track.name] if i.track is not None else 0 for i in instances],
        )
        results.append((_place(frame), people))
    if kind == "dlc" and not results:
        raise DhnError(f"{path}: the images or videos that it names must lie beside it")
    return Recording(joints, in_order(results))


def _ids(names: list[str]) -> dict[str, int]:
    """An id for each track: the number at the end of its name, if all have one, else from 1."""
    ends = [re.search(r"\d+$", name) for name in names]
    numbers = [int(end.group()) if end else 0 for end in ends]
    if 0 in numbers or len({*numbers}) < len(numbers):
        numbers = list(range(1, len(names) + 1))
    return dict(zip(names, numbers, strict=True))


def _points(instance: Any) -> np.ndarray:
    """x, y and score of each joint, zeros where it is missing, [J, 3]."""
    points = instance.points
    scores = points["score"] if "score" in (points.dtype.names or ()) else np.ones(len(points))
    values = np.column_stack([points["xy"], np.nan_to_num(scores, nan=1.0)])
    there = points["visible"] & np.isfinite(values).all(1)
    return np.where(there[:, None], values, 0)


def _place(frame: Any) -> Place:
    """Where a labelled frame comes from: an image of a list, or a frame of a video."""
    names, index = frame.video.filename, int(frame.frame_idx)
    shape = frame.video.backend_metadata.get("shape") or (0, 0, 0, 0)
    size = (int(shape[2] or 0), int(shape[1] or 0))
    if isinstance(names, list | tuple):
        return Place(str(names[index]), None, size=size)
    if Path(names).suffix.lower() in IMAGE_SUFFIXES:
        return Place(str(names), None, size=size)
    return Place(str(names), index, size=size)


def write_sleap(recording: Recording, path: Path, kind: str) -> None:
    """Writes everybody as predicted instances, whose tracks are called `track3` after their ids.

    Which joints were refined is not kept.

    Args:
        recording: the people.
        path: the file.
        kind: `slp` or `nwb`.

    Raises:
        DhnError: sleap-io is not installed, or cannot write them.
    """
    sio = _sleap_io(path)
    if kind == "nwb":
        _check_nwb(recording, path)
    names = recording.joints.names
    skeleton = sio.Skeleton(
        nodes=[sio.Node(name) for name in names],
        edges=[(names[a], names[b]) for a, b in recording.joints.skeleton],
        symmetries=[(names[j], names[k]) for j, k in enumerate(recording.joints.flip) if j < k],
        name=recording.joints.name,
    )
    videos: dict[str, Any] = {}
    tracks: dict[int, Any] = {}
    frames: list[Any] = []
    for frame, people in recording.results:
        source = frame.source
        if source.path not in videos:
            width, height = frame.size
            videos[source.path] = sio.Video(
                filename=source.path,  # an image is a video of one frame
                backend_metadata={"shape": (1, height, width, 3)} if width else {},
                open_backend=False,
            )
        instances = [_instance(sio, people, k, skeleton, tracks) for k in range(len(people))]
        # sleap-io takes the frames of NWB files for a row without gaps.
        index = len(frames) if kind == "nwb" else frame.index or 0
        if instances or kind != "nwb":
            frames.append(sio.LabeledFrame(videos[source.path], index, instances))
    labels = sio.Labels(
        labeled_frames=frames,
        videos=[*videos.values()],
        skeletons=[skeleton],
        tracks=[*tracks.values()],
    )
    with written_whole(path) as temporary:
        try:
            sio.save_file(labels, str(temporary), format=kind, verbose=False)
        except Exception as error:  # as above
            raise DhnError(f"{path}: sleap-io cannot write it: {unforeseen(error)}") from error


def _check_nwb(recording: Recording, path: Path) -> None:
    """Raises DhnError if sleap-io cannot write these people as NWB."""
    if any(
        len(people) and (people.ids is None or not people.ids.all())
        for _, people in recording.results
    ):
        raise DhnError(
            f"{path}: NWB files hold tracks, and somebody has no id; predict with --track, or "
            "write .slp"
        )
    sources = {frame.source for frame, _ in recording.results}
    if len(sources) > 1 or not all(source.is_video for source in sources):
        raise DhnError(f"{path}: an NWB file is about one video; write .slp")


def _instance(sio: ModuleType, people: People, k: int, skeleton: Any, tracks: Any) -> Any:
    """One person; a new id gets its track."""
    points = people.keypoints[k].astype(float)
    number = 0 if people.ids is None else int(people.ids[k])
    if number and number not in tracks:
        tracks[number] = sio.Track(f"track{number}")  # what sleap-io expects in NWB files
    return sio.PredictedInstance.from_numpy(
        np.where(points[:, 2:] > 0, points[:, :2], np.nan),
        skeleton=skeleton,
        point_scores=points[:, 2],
        score=float(people.scores[k]),
        track=tracks.get(number),
    )


def _sleap_io(path: Path) -> ModuleType:
    try:
        import sleap_io
    except ImportError as error:
        raise DhnError(f"{path}: needs sleap-io: pip install sleap-io") from error
    module: ModuleType = sleap_io
    return module
