"""What a check of a data set finds, as plain data."""

from dataclasses import asdict
from typing import Any, Literal, NamedTuple

from dhn.data.annotations import AnnotatedImage
from dhn.data.joints import JointSet

Level = Literal["error", "warning", "hint"]


class Finding(NamedTuple):
    """One kind of problem in one split.

    Attributes:
        level: errors would stop a training or spoil its measurements, warnings cost labels, and
            hints may be right as they are.
        what: the problem.
        split: the name of the split.
        cases: the file or id of each case, with details.
    """

    level: Level
    what: str
    split: str
    cases: list[str]


class Report(NamedTuple):
    """What `check_dataset` found.

    Attributes:
        splits: the figures of each split: `images`, `people`, `keypoints` (visible, hidden) and
            `people_per_image` (how many images have 0, 1, 2, ... people); where the file has a
            crowdIndex, also `crowd_index` and `crowd_index_of_labels` (shares of easy, medium and
            hard images) and `crowd_index_moved` (share of images whose two levels differ).
        findings: errors first, then warnings, then hints.
        joints: the joints of each split, as training would take them.
    """

    splits: dict[str, dict[str, Any]]
    findings: list[Finding]
    joints: dict[str, JointSet]

    def count(self, level: Level) -> int:
        """The number of cases of a level."""
        return sum(len(finding.cases) for finding in self.findings if finding.level == level)

    def as_json(self) -> dict[str, Any]:
        """The whole report with every case, as plain values."""
        findings = [f._asdict() | {"count": len(f.cases)} for f in self.findings]
        joints = {split: asdict(joints) for split, joints in self.joints.items()}
        return {"splits": self.splits, "findings": findings, "joints": joints}


def name_of(image: AnnotatedImage) -> str:
    """How a case names an image."""
    return f"{image.path} (id {image.id})"
