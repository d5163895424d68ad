"""Checks a data set, so that its faults are found before a week of training and not after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.data.annotations import AnnotatedImage, load_annotations
from dhn.data.check_images import check_images
from dhn.data.check_labels import check_labels
from dhn.data.crowding import CROWD_LEVELS, crowd_index
from dhn.data.findings import Finding, Report
from dhn.data.joints import JointSet
from dhn.data.layouts import find_splits, is_one_split

_RANK = ("error", "warning", "hint")


def check_dataset(
    dataset: str | Path,
    splits: Sequence[str] = (),
    *,
    decode: bool = True,
    max_people: int = 30,
    progress: Progress = silent,
) -> Report:
    """Checks annotations and images of a data set.

    Args:
        dataset: as for `load_annotations`.
        splits: the splits to check; by default all that there are.
        decode: read every image; otherwise only see whether its file exists.
        max_people: the number of people of an image that training keeps.
        progress: shows how many images are checked.

    Raises:
        DhnError: there is no such data set.
    """
    figures: dict[str, dict[str, Any]] = {}
    findings: list[Finding] = []
    joints: dict[str, JointSet] = {}
    images: list[tuple[str, AnnotatedImage]] = []
    for split in splits or find_splits(dataset):
        name = Path(dataset).name if is_one_split(dataset) else split
        try:
            annotations = load_annotations(dataset, split)
        except DhnError as error:
            findings.append(Finding("error", "annotations cannot be used", name, [str(error)]))
            continue
        joints[name] = annotations.joints
        figures[name] = split_figures(annotations.images)
        findings += check_labels(name, annotations, figures[name], max_people)
        # The images alone are kept, without `raw`, which is large.
        images += [(name, image) for image in annotations.images]
    findings += check_images(images, decode=decode, progress=progress)
    findings = [finding for finding in findings if finding.cases]
    findings.sort(key=lambda finding: _RANK.index(finding.level))
    return Report(figures, findings, joints)


def split_figures(images: Sequence[AnnotatedImage]) -> dict[str, Any]:
    """The figures of a split; see `Report`."""
    visible = hidden = 0
    for image in images:
        for person in image.people:
            visible += int((person.keypoints[:, 2] == 2).sum())
            hidden += int((person.keypoints[:, 2] == 1).sum())
    counts = np.array([len(image.people) for image in images], int)
    figures: dict[str, Any] = {
        "images": len(images),
        "people": int(counts.sum()),
        "keypoints": [visible, hidden],
        "people_per_image": np.bincount(counts, minlength=1).tolist(),
    }
    crowds = [image for image in images if image.crowd_index is not None]
    if crowds:
        given = _crowd_levels([image.crowd_index for image in crowds])
        measured = _crowd_levels([_crowd_index(image) for image in crowds])
        figures["crowd_index"] = (np.bincount(given, minlength=3) / len(crowds)).tolist()
        figures["crowd_index_of_labels"] = (
            np.bincount(measured, minlength=3) / len(crowds)
        ).tolist()
        figures["crowd_index_moved"] = float((given != measured).mean())
    return figures


def _crowd_index(image: AnnotatedImage) -> float:
    people = [p for p in image.people if p.num_keypoints and not p.iscrowd]
    if not people:
        return 0.0
    return crowd_index(np.stack([p.keypoints for p in people]), np.array([p.box for p in people]))


def _crowd_levels(crowd_indices: Sequence[float | None]) -> np.ndarray:
    """0 for easy, 1 for medium and 2 for hard."""
    lows = [low for low, _ in CROWD_LEVELS.values()]
    return np.digitize(np.array(crowd_indices, float), lows[1:])
