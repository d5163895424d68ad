"""Several data sets as one: their joints brought to a common set, their images drawn by weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dhn.data.annotations import AnnotatedImage, Annotations, Person
from dhn.data.joints import COCO, CROWDPOSE, JointSet, flip_from_names

_COMMON_NAMES = (*COCO.names, "head", "neck")

# COCO's 17 joints with CrowdPose's and LSP's top of the head and neck.
COMMON = JointSet(
    name="common",
    names=_COMMON_NAMES,
    skeleton=(*COCO.skeleton, (17, 18), (18, 5), (18, 6)),
    flip=flip_from_names(_COMMON_NAMES),
    sigmas=(*COCO.sigmas, *CROWDPOSE.sigmas[-2:]),
    grouping_order=(*(COCO.grouping_order or range(17)), 17, 18),
)

JOINT_SETS = {"coco": COCO, "crowdpose": CROWDPOSE, "common": COMMON}


def with_joints(
    annotations: Annotations, joints: JointSet, renamed: Mapping[str, str] | None = None
) -> Annotations:
    """The annotations with the joints of another set.

    Joints of the same name are the same. A joint that these annotations do not have is unknown in
    all their people, as where labels are partial.

    Args:
        annotations: they are left as they are.
        joints: the set to bring them to.
        renamed: names in `joints` for joints that have another name in the annotations.

    Raises:
        ValueError: a name in `renamed` is not known, or no joint is in both sets.
    """
    names = {name: name for name in annotations.joints.names} | dict(renamed or {})
    for theirs, ours in (renamed or {}).items():
        if theirs not in annotations.joints.names:
            known = ", ".join(annotations.joints.names)
            raise ValueError(f"{annotations.source} has no joint {theirs!r}; it has {known}")
        if ours not in joints.names:
            raise ValueError(f"{theirs}: there is no joint {ours!r}; use {', '.join(joints.names)}")
    source = {names[name]: j for j, name in enumerate(annotations.joints.names)}
    index = np.array([source.get(name, -1) for name in joints.names])
    if (index < 0).all():
        raise ValueError(f"{annotations.source}: none of its joints is one of {joints.name}")
    if joints.names == annotations.joints.names and (index == np.arange(len(joints))).all():
        same = joints == annotations.joints
        return annotations if same else replace(annotations, joints=joints)
    images = [_with_joints(image, index) for image in annotations.images]
    return replace(annotations, joints=joints, images=images, raw={})


def _with_joints(image: AnnotatedImage, index: np.ndarray) -> AnnotatedImage:
    return replace(image, people=tuple(_person(person, index) for person in image.people))


def _person(person: Person, index: np.ndarray) -> Person:
    """Somebody's joints `index`, of which -1 are unknown."""
    missing = index < 0
    keypoints = np.where(missing[:, None], 0, person.keypoints[index]).astype(np.float32)
    unknown = None
    if not person.iscrowd and (person.keypoints[:, 2] > 0).any():
        unknown = missing
        if person.unknown is not None:
            unknown = missing | person.unknown[index]
    return replace(person, keypoints=keypoints, unknown=unknown)


def joined(parts: Sequence[Annotations]) -> Annotations:
    """Annotations of the same joints one after the other, to train on; they have no `raw`."""
    first = parts[0]
    if len(parts) == 1:
        return first
    images = [image for part in parts for image in part.images]
    return replace(first, source="+".join(part.source for part in parts), images=images, raw={})


@dataclass(frozen=True)
class Mixture:
    """How often an epoch shows the images of each part of a data set.

    Args:
        sizes: the number of images in each part; their indices follow each other.
        weights: how often an epoch shows each image of a part on average. Where that is no whole
            number, a part of the images is drawn anew in every epoch.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples of each part an epoch has."""
        pairs = zip(self.sizes, self.weights, strict=True)
        return tuple(round(size * weight) for size, weight in pairs)

    @property
    def samples(self) -> int:
        """How many samples an epoch has."""
        return sum(self.counts)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The samples of an epoch in the order of the parts, int64 [samples].

        A sample is an image's index, plus the number of all images for each time that the epoch
        has shown the image before: the same image must not become the same sample twice.
        """
        total, offset, drawn = sum(self.sizes), 0, [np.zeros(0, np.int64)]
        for size, count in zip(self.sizes, self.counts, strict=True):
            everything = np.arange(offset, offset + size)
            for repeat in range(count // size if size else 0):
                drawn.append(everything + repeat * total)
            if size and (rest := count % size):
                some = np.sort(rng.choice(size, rest, replace=False))
                drawn.append(everything[some] + count // size * total)
            offset += size
        return np.concatenate(drawn)
