"""The result of a prediction: the people of one image."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dhn.base.errors import DhnError
from dhn.data.joints import JointSet
from dhn.media.convert import as_rgb
from dhn.media.draw import draw_poses

if TYPE_CHECKING:
    import pandas
    import supervision


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
        image: the image in which they were found, RGB uint8 [H, W, 3], which stays in memory as
            long as these people do; None where it is not kept, as in
            `dataclasses.replace(people, image=None)`.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    joints: JointSet
    image: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> "People":
        keypoints = self.keypoints[chosen].reshape(-1, *self.keypoints.shape[1:])
        return People(keypoints, np.atleast_1d(self.scores[chosen]), self.joints, self.image)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The J names, like `left_shoulder`, in the order of `keypoints`."""
        return self.joints.names

    @property
    def boxes(self) -> np.ndarray:
        """Boxes around the joints found, float32 [P, 4]: left, top, width, height in pixels.

        All four are 0 where a person has no joint.
        """
        return _boxes(self.keypoints).astype(np.float32)

    def plot(self, image: Any = None, *, colours: np.ndarray | None = None) -> np.ndarray:
        """Draws the people over their image.

        Args:
            image: another image of the same size to draw over, of any kind that `as_rgb` takes.
            colours: int [P], the number of each person's hue; 0, 1, ... by default. See
                `dhn.media.draw.SteadyColours` for videos.

        Returns:
            a new image, RGB uint8 [H, W, 3].

        Raises:
            DhnError: no image was given and none was kept, or `as_rgb` refuses it.
        """
        canvas = self.image if image is None else as_rgb(image)
        if canvas is None:
            raise DhnError("plot: the image of these people was not kept; give it to plot(image)")
        return draw_poses(canvas, self.keypoints, self.joints, colours=colours)

    def to_dict(self) -> dict[str, Any]:
        """The people as plain values, which JSON can hold.

        Returns:
            `joint_names`, a list of J names, and `predictions`, a list of P dictionaries as
            OpenPifPaf writes them: `keypoints`, flat, has x, y and score of each joint, rounded
            to four digits, and three zeros where it was not found; `bbox` is the box around the
            joints found (left, top, width, height), `score` the person's score, and
            `category_id` is 1.
        """
        found = self.keypoints[..., 2:] > 0
        keypoints = np.where(found, self.keypoints, 0).astype(float).round(4)
        predictions = [
            {"keypoints": person.ravel().tolist(), "bbox": box, "score": score, "category_id": 1}
            for person, box, score in zip(
                keypoints,
                _boxes(keypoints).round(3).tolist(),
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
            and `score`, unrounded.
        """
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": person.ravel().tolist(),
                "score": score,
            }
            for person, score in zip(self.keypoints, self.scores.tolist(), strict=True)
        ]

    def to_dataframe(self) -> "pandas.DataFrame":
        """The people as a pandas table, a row for each: the columns of `dhn predict --csv-output`.

        Returns:
            a table with the columns `score`, and for every joint `NAME_x`, `NAME_y` and
            `NAME_score`, which are NaN where the joint was not found; its index is `person`.

        Raises:
            DhnError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise DhnError("to_dataframe needs pandas: pip install pandas") from error
        found = self.keypoints[..., 2:] > 0
        values = np.where(found, self.keypoints, np.nan).reshape(len(self), 3 * len(self.joints))
        table = pandas.DataFrame(values, columns=joint_columns(self.joints))
        table.insert(0, "score", self.scores)
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
    """Names of 3 J columns of a table: `NAME_x`, `NAME_y` and `NAME_score` of each joint."""
    return [f"{name}_{value}" for name in joints.names for value in ("x", "y", "score")]


def _boxes(keypoints: np.ndarray) -> np.ndarray:
    """Boxes around found joints [P, 4] in the dtype of keypoints [P, J, 3]."""
    found = keypoints[..., 2:] > 0
    low = np.where(found, keypoints, np.inf)[..., :2].min(1, initial=np.inf)
    high = np.where(found, keypoints, -np.inf)[..., :2].max(1, initial=-np.inf)
    there = found.any(1)
    low, high = np.where(there, low, 0), np.where(there, high, 0)
    return np.concatenate([low, high - low], 1)
