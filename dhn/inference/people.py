"""The result of a prediction: the people of one image."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from dhn.base.errors import DhnError
from dhn.data.joints import JointSet
from dhn.media.convert import as_rgb
from dhn.media.draw import draw_poses

if TYPE_CHECKING:
    import pandas
    import supervision

Labels: TypeAlias = Literal["id", "score", "both", "none"]


@dataclass(frozen=True, eq=False)
class People:
    """The people found in one image: P people of J joints each.

    `len(people)` is P. `people[chosen]` are some of them, chosen as NumPy chooses: by a number, a
    slice, a list of numbers or a mask, as in `people[people.scores > 0.3]`.

    Attributes:
        keypoints: float32 [P, J, 3]: x, y in image pixels (continuous: the centre of the first
            pixel is 0.5, 0.5), and the joint's score, about 0..1; all three are 0 where a joint
            was not found.
        scores: float32 [P]: the mean score of all J joints before refinement, where a joint that
            was not found counts as 0.
        joints: names, limbs and pairs of the J joints.
        refined: bool [P, J]: which joints grouping did not find and refinement filled in where the
            maps support them best; False everywhere by default. See `states`.
        image: the image in which they were found, RGB uint8 [H, W, 3], which stays in memory as
            long as these people do; None where it is not kept, as in
            `dataclasses.replace(people, image=None)`.
        ids: int [P]: who is the same person in other frames, from 1; 0 for somebody without an
            identity. None, the default, unless a `dhn.tracking.Tracker` gave them.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    joints: JointSet
    image: np.ndarray | None = field(default=None, repr=False)
    refined: np.ndarray = field(default=cast("np.ndarray", None), repr=False)
    ids: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.refined is None:
            object.__setattr__(self, "refined", np.zeros(self.keypoints.shape[:2], bool))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> "People":
        J = len(self.joints)
        return replace(
            self,
            keypoints=self.keypoints[chosen].reshape(-1, J, 3),
            scores=np.atleast_1d(self.scores[chosen]),
            refined=self.refined[chosen].reshape(-1, J),
            ids=None if self.ids is None else np.atleast_1d(self.ids[chosen]),
        )

    @property
    def states(self) -> np.ndarray:
        """How each joint came to be, str [P, J].

        `seen`: found by grouping its peak in the heatmap with the person. `refined`: filled in by
        refinement, often a guess. `missing`: not found; x, y and score are 0.
        """
        there = self.keypoints[..., 2] > 0
        return np.where(there, np.where(self.refined, "refined", "seen"), "missing")

    def without_weak_joints(self, joint_conf: float) -> "People":
        """The same people, whose joints of scores below `joint_conf` are missing."""
        strong = self.keypoints[..., 2] >= joint_conf
        keypoints = np.where(strong[..., None], self.keypoints, np.float32(0))
        return replace(self, keypoints=keypoints, refined=self.refined & strong)

    def with_id(self, id: int) -> "People":
        """Those who have this id; nobody where there are no ids."""
        return self[np.zeros(len(self), bool) if self.ids is None else self.ids == id]

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The J names, like `left_shoulder`, in the order of `keypoints`."""
        return self.joints.names

    @property
    def boxes(self) -> np.ndarray:
        """Boxes around the joints found, float32 [P, 4]: left, top, width, height in pixels.

        All four are 0 where a person has no joint.
        """
        return boxes_of(self.keypoints).astype(np.float32)

    def plot(
        self,
        image: Any = None,
        *,
        colours: np.ndarray | None = None,
        labels: Labels = "id",
        line_width: float | None = None,
        boxes: bool = False,
    ) -> np.ndarray:
        """Draws the people over their image: joints seen solid, refined ones hollow.

        Joints that score 0.1 or less are left out.

        Args:
            image: another image of the same size to draw over, of any kind that `as_rgb` takes.
            colours: int [P], the number of each person's hue; 0, 1, ... by default. See
                `dhn.media.draw.SteadyColours` for videos.
            labels: what stands above each head: the `id` of those who have one, the person's
                `score`, `both`, or `none`.
            line_width: of limbs, in pixels; by default it follows each person's size.
            boxes: draw a box around each person's joints.

        Returns:
            a new image, RGB uint8 [H, W, 3].

        Raises:
            DhnError: no image was given and none was kept, or `as_rgb` refuses it.
        """
        canvas = self.image if image is None else as_rgb(image)
        if canvas is None:
            raise DhnError("plot: the image of these people was not kept; give it to plot(image)")
        return draw_poses(
            canvas,
            self.keypoints,
            self.joints,
            refined=self.refined,
            colours=colours,
            labels=self._labels(labels),
            line_width=line_width,
            boxes=boxes,
        )

    def _labels(self, kind: Labels) -> list[str]:
        """A text for each person."""
        ids = [0] * len(self) if self.ids is None else self.ids.tolist()
        named = [str(id) if id and kind in ("id", "both") else "" for id in ids]
        if kind not in ("score", "both"):
            return named
        scores = (f"{score:.2f}" for score in self.scores)
        return [" ".join(filter(None, pair)) for pair in zip(named, scores, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """The people as plain values, which JSON can hold.

        Returns:
            `joint_names`, a list of J names, and `predictions`, a list of P dictionaries as
            OpenPifPaf writes them: `keypoints`, flat, has x, y and score of each joint, rounded
            to four digits, and three zeros where it was not found; `states` has `seen`,
            `refined` or `missing` for each joint; `bbox` is the box around the joints found
            (left, top, width, height), `score` the person's score, and `category_id` is 1. `id`
            is there for people who have one.
        """
        found = self.keypoints[..., 2:] > 0
        keypoints = np.where(found, self.keypoints, 0).astype(float).round(4)
        ids = [0] * len(self) if self.ids is None else self.ids.tolist()
        predictions = [
            ({"id": id} if id else {})
            | {
                "keypoints": person.ravel().tolist(),
                "states": states,
                "bbox": box,
                "score": score,
                "category_id": 1,
            }
            for id, person, states, box, score in zip(
                ids,
                keypoints,
                self.states.tolist(),
                boxes_of(keypoints).round(3).tolist(),
                self.scores.astype(float).round(4).tolist(),
                strict=True,
            )
        ]
        return {"joint_names": list(self.joint_names), "predictions": predictions}

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """The people as results in COCO's format, which `dhn eval --results` and pycocotools score.

        Args:
            image_id: the image's id in the annotations.
            category_id: the id of the category `person` there.

        Returns:
            P dictionaries of `image_id`, `category_id`, `keypoints` (3 J numbers: x, y, score)
            and `score`, unrounded; `track_id` for people who have an id.
        """
        ids = [0] * len(self) if self.ids is None else self.ids.tolist()
        return [
            ({"track_id": id} if id else {})
            | {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": person.ravel().tolist(),
                "score": score,
            }
            for id, person, score in zip(ids, self.keypoints, self.scores.tolist(), strict=True)
        ]

    def to_dataframe(self) -> "pandas.DataFrame":
        """The people as a pandas table, a row for each: the columns of `dhn predict --csv-output`.

        Returns:
            a table with the columns `score`, and for every joint `NAME_x`, `NAME_y`,
            `NAME_score`, which are NaN where the joint was not found, and `NAME_state`, one of
            `states`; its index is `person`.

        Raises:
            DhnError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise DhnError("to_dataframe needs pandas: pip install pandas") from error
        found = self.keypoints[..., 2:] > 0
        numbers = np.where(found, self.keypoints, np.nan)  # [P, J, 3]
        by_joint = [
            column
            for values, states in zip(numbers.transpose(1, 2, 0), self.states.T, strict=True)
            for column in (*values, states)
        ]
        columns = dict(zip(joint_columns(self.joints), by_joint, strict=True))
        table = pandas.DataFrame({"score": self.scores} | columns)
        return table.rename_axis("person")

    def to_supervision(self) -> "supervision.KeyPoints":
        """The people as `supervision.KeyPoints`, for its annotators, trackers and data sets.

        Joints that were not found are marked as not visible. The class of every person is 0.

        Raises:
            DhnError: supervision is not installed, or is older than version 0.29.
        """
        try:
            from supervision import KeyPoints

            return KeyPoints(
                xy=self.keypoints[..., :2],
                class_id=np.zeros(len(self), int),
                keypoint_confidence=self.keypoints[..., 2],
                detection_confidence=self.scores,
                visible=self.keypoints[..., 2] > 0,
            )
        except (ImportError, TypeError) as error:  # older versions know other keywords
            raise DhnError(
                'to_supervision needs supervision: pip install "supervision>=0.29"'
            ) from error


def joint_columns(joints: JointSet) -> list[str]:
    """Names of 4 J columns of a table: `NAME_x`, `_y`, `_score` and `_state` of each joint."""
    return [f"{name}_{value}" for name in joints.names for value in ("x", "y", "score", "state")]


def boxes_of(keypoints: np.ndarray) -> np.ndarray:
    """Boxes around the joints found in poses.

    Args:
        keypoints: [P, J, 3]: x, y, and a score above 0 where the joint was found.

    Returns:
        [P, 4], in the same dtype: left, top, width, height; zeros where there is no joint.
    """
    found = keypoints[..., 2:] > 0
    low = np.where(found, keypoints, np.inf)[..., :2].min(1, initial=np.inf)
    high = np.where(found, keypoints, -np.inf)[..., :2].max(1, initial=-np.inf)
    there = found.any(1)
    low, high = np.where(there, low, 0), np.where(there, high, 0)
    return np.concatenate([low, high - low], 1)
