"""Why predictions are wrong: the errors of Ronchi and Perona (ICCV 2017), and what each one costs.

A prediction is about the person whom it fits best, with an OKS of at least `NEAR`, and of several
predictions about a person, the one with the highest score stands for it. (The paper matches as COCO
does. In crowds, the second prediction of one person then takes another one, and each of its joints
looks swapped.) The similarity of a joint to a place, s = exp(-d^2 / (2 area (2 sigma)^2)), says
what is wrong with it:

    good       s >= .85
    jitter     .5 <= s < .85
    inversion  s < .5, and the joint lies (s >= .5) on its mirrored joint: left on right
    swap       s < .5, and it lies on that joint, or its mirrored one, of somebody else
    miss       s < .5, and it lies on none of them

Of inversion and swap, the one with the higher s is taken. Four more errors concern whole people:

    scoring    of the predictions around a person, the one with the highest score is not the best
    background a prediction far from everybody (OKS below `NEAR`)
    duplicate  a prediction about a person for whom another one stands
    not found  a person whom no prediction is about

Duplicates are ours: the paper has them among its scoring errors and false positives.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.evaluation.figures import AREAS, Judged
from dhn.evaluation.matching import Pairs, match, oks, pairs
from dhn.evaluation.people import Bools, Floats, Found, Ints, Truth
from dhn.evaluation.precision import precision_and_recall

NEAR = 0.1  # OKS from which on a prediction is about a person, however bad it is
GOOD, SAME_PLACE = 0.85, 0.5  # similarity of a joint

JOINT_ERRORS = ("jitter", "inversion", "swap", "miss")
PERSON_ERRORS = ("scoring", "background", "duplicate", "not_found")
ERRORS = JOINT_ERRORS + PERSON_ERRORS

# Of what an error's share is taken.
AMONG = dict.fromkeys(JOINT_ERRORS, "labelled joints of people found") | {
    "scoring": "people found",
    "background": "predictions",
    "duplicate": "predictions",
    "not_found": "people",
}


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """What is wrong with D predictions of G people in N images.

    Attributes:
        truth, found: the people.
        about: int64 [D], the index of the annotated person whom a prediction is about, or -1.
        closeness: float64 [D], its OKS to this person, else 0.
        person: int64 [D], the index of the annotated person for whom a prediction stands, or -1.
        joints: int8 [D, J], -1 where a joint is not labelled or the person is nobody who counts, 0
            where it is good, else 1 + its index in `JOINT_ERRORS`.
        joint_similarity: float64 [D, J], s of the joint to its own place; NaN where `joints` is -1.
        background, duplicate: bool [D].
        not_found, misordered, near: bool [G]: people without a prediction, people with a scoring
            error, and people who have a prediction around them. Ignored people are none of these.
    """

    truth: Truth
    found: Found
    about: Ints
    closeness: Floats
    person: Ints
    joints: npt.NDArray[np.int8]
    joint_similarity: Floats
    background: Bools
    duplicate: Bools
    not_found: Bools
    misordered: Bools
    near: Bools

    @cached_property
    def by_image(self) -> dict[str, tuple[Ints, Ints]]:
        """For each error int64 [N] twice: how often it occurs in an image, and could occur.

        Joints count out of the labelled ones of people found, `scoring` out of the people with a
        prediction around them, `background` and `duplicate` out of all predictions that count, and
        `not_found` out of all people that count.
        """
        N = len(self.truth.image_ids)

        def total(image: Ints, values: npt.NDArray) -> Ints:
            return np.bincount(image, weights=values, minlength=N).astype(np.int64)

        f, g = self.found.image, self.truth.image
        compared = total(f, (self.joints >= 0).sum(axis=1))
        counts = {
            name: (total(f, (self.joints == 1 + k).sum(axis=1)), compared)
            for k, name in enumerate(JOINT_ERRORS)
        }
        counts["scoring"] = total(g, self.misordered), total(g, self.near)
        on_ignored = np.append(self.truth.ignored, False)[self.person]
        predictions = total(f, ~on_ignored)
        counts["background"] = total(f, self.background), predictions
        counts["duplicate"] = total(f, self.duplicate), predictions
        counts["not_found"] = total(g, self.not_found), total(g, ~self.truth.ignored)
        return counts

    def shares(self, weights: npt.NDArray[np.int32] | None = None) -> dict[str, Floats]:
        """The share of each error, float64 [S] in 0..1; NaN where it cannot occur at all.

        Args:
            weights: int32 [S, N], how often each image counts in each sample; None is once (S = 1).
        """
        if weights is None:
            weights = np.ones((1, len(self.truth.image_ids)), np.int32)
        shares = {}
        for name, (cases, possible) in self.by_image.items():
            all_cases, all_possible = weights @ cases, weights @ possible
            share = all_cases / np.maximum(all_possible, 1)
            shares[name] = np.where(all_possible > 0, share, np.nan)
        return shares

    def corrected(self, error: str) -> tuple[Truth, Found]:
        """The people without one kind of error.

        Joints move to where they belong. For `scoring`, the prediction that fits a person best gets
        its OKS as its score, and those that are left over stand behind all of these. `background`
        and `duplicate` vanish, and people who are `not_found` need not be found any more.
        """
        if error in JOINT_ERRORS:
            wrong = self.joints == 1 + JOINT_ERRORS.index(error)
            right = self.truth.keypoints[self.person][..., :2] if len(self.truth.image) else 0
            moved = np.where(wrong[..., None], right, self.found.keypoints)
            return self.truth, replace(self.found, keypoints=moved)
        if error == "scoring":
            return self.truth, _scored_by_fit(self.truth, self.found)
        if error == "not_found":
            return replace(self.truth, ignored=self.truth.ignored | self.not_found), self.found
        return self.truth, self.found.where(~getattr(self, error))


def analyse_errors(truth: Truth, found: Found) -> ErrorAnalysis:
    """Finds out what is wrong with each joint and each person."""
    between = pairs(truth, found)
    fit = oks(truth, found, between)
    about, closeness = _best_person(truth, between, fit, len(found.image))
    stands = _first_of_each(about) | np.append(truth.ignored, False)[about]
    person = np.where(stands, about, -1)
    G = len(truth.image)
    best, standing = np.zeros(G), np.zeros(G)
    np.maximum.at(best, about[about >= 0], closeness[about >= 0])
    standing[person[person >= 0]] = closeness[person >= 0]
    near = (best > 0) & ~truth.ignored
    joints, similarity = _classify(truth, found, between, person)
    return ErrorAnalysis(
        truth=truth,
        found=found,
        about=about,
        closeness=closeness,
        person=person,
        joints=joints,
        joint_similarity=similarity,
        background=about < 0,
        duplicate=(about >= 0) & ~stands,
        not_found=~near & ~truth.ignored,
        misordered=near & (standing < best - 1e-9),
        near=near,
    )


def _best_person(truth: Truth, between: Pairs, fit: Floats, D: int) -> tuple[Ints, Floats]:
    """Whom each prediction is about, int64 [D] (-1: nobody), and its OKS to this person.

    People who have to be found come first. Any point of a crowd's region fits the crowd.
    """
    close = np.flatnonzero(fit >= NEAR)
    found, person, fit = between.found[close], between.person[close], fit[close]
    order = np.lexsort((fit, ~truth.ignored[person], found))
    best = order[np.append(np.diff(found[order]) > 0, True)] if len(order) else order
    about, closeness = np.full(D, -1), np.zeros(D)
    about[found[best]], closeness[found[best]] = person[best], fit[best]
    return about, closeness


def _first_of_each(about: Ints) -> Bools:
    """Whether a prediction is the first about its person. They stand in the order of scores."""
    first = np.zeros(len(about), np.bool_)
    first[np.unique(about, return_index=True)[1]] = True
    return first & (about >= 0)


def gains(
    analysis: ErrorAnalysis,
    weights: npt.NDArray[np.int32] | None = None,
    errors: tuple[str, ...] = ERRORS,
) -> dict[str, Floats]:
    """How much AP would rise if one kind of error were gone, float64 [S] for each.

    The gains do not add up: a person may have several errors.

    Args:
        analysis: the errors.
        weights: int32 [S, N], how often each image counts in each sample; None is once (S = 1).
        errors: which ones.
    """
    before = precision_without(analysis, None, weights)
    return {error: precision_without(analysis, error, weights) - before for error in errors}


def precision_without(
    analysis: ErrorAnalysis, error: str | None, weights: npt.NDArray[np.int32] | None = None
) -> Floats:
    """AP if one kind of error, or None, were gone, float64 [S]; NaN where nobody is to be found."""
    truth, found = (analysis.truth, analysis.found) if error is None else analysis.corrected(error)
    matches = match(truth, found, area=AREAS["all"])
    precision, _ = precision_and_recall(truth, found, matches, weights)
    ap = precision.mean(axis=(1, 2))
    return np.where(ap == -1, np.nan, ap)


class ErrorCost(NamedTuple):
    """One kind of error.

    Attributes:
        among: of what the share is taken.
        cases: how often the error occurs.
        share: in 0..1; None where it cannot occur at all.
        gain: how much AP would rise without it; None where nobody has to be found.
    """

    among: str
    cases: int
    share: float | None
    gain: float | None


def error_table(judged: Judged) -> dict[str, ErrorCost]:
    """How often each of `ERRORS` occurs, and how much AP would rise if it were gone."""
    analysis = analyse_errors(judged.truth, judged.found)
    shares, gained = analysis.shares(), gains(analysis)
    return {
        error: ErrorCost(
            AMONG[error],
            int(analysis.by_image[error][0].sum()),
            number(shares[error][0]),
            number(gained[error][0]),
        )
        for error in ERRORS
    }


def number(value: float) -> float | None:
    """A plain number; None for NaN, which JSON lacks."""
    return None if np.isnan(value) else float(value)


def _similarity(truth: Truth, found: Found, f: Ints, g: Ints, flip: Ints) -> Floats:
    """s of each predicted joint j to the annotated joint flip[j], [P, J]; 0 if not labelled."""
    place = truth.keypoints[g][:, flip]
    off = found.keypoints[f] - place[..., :2]
    scale = 2 * (2 * truth.sigmas) ** 2 * (truth.areas[g, None] + np.spacing(1))
    return np.where(place[..., 2] > 0, np.exp(-(off**2).sum(axis=2) / scale), 0.0)


def _classify(
    truth: Truth, found: Found, between: Pairs, person: Ints
) -> tuple[npt.NDArray[np.int8], Floats]:
    """`joints` and `joint_similarity` of an `ErrorAnalysis`."""
    D, J = found.keypoints.shape[:2]
    straight, flip = np.arange(J), np.array(truth.joints.flip)
    own = np.flatnonzero(person[between.found] == between.person)
    other = np.flatnonzero((person[between.found] != between.person) & (person[between.found] >= 0))
    f, g = between.found[own], between.person[own]
    similarity, inverted, swapped = (np.zeros((D, J)) for _ in range(3))
    similarity[f] = _similarity(truth, found, f, g, straight)
    inverted[f] = np.where(flip == straight, 0.0, _similarity(truth, found, f, g, flip))
    f, g = between.found[other], between.person[other]
    for joints in (straight, flip):
        np.maximum.at(swapped, f, _similarity(truth, found, f, g, joints))
    jitter, inversion, swap, miss = range(1, 5)
    elsewhere = np.where(inverted >= swapped, inversion, swap)
    elsewhere = np.where(np.maximum(inverted, swapped) >= SAME_PLACE, elsewhere, miss)
    kinds = np.where(similarity >= SAME_PLACE, jitter, elsewhere)
    kinds = np.where(similarity >= GOOD, 0, kinds)
    compared = np.zeros((D, J), np.bool_)
    matched = np.flatnonzero(person >= 0)
    who = person[matched]
    compared[matched] = truth.labelled[who] & ~truth.ignored[who, None]
    return (
        np.where(compared, kinds, -1).astype(np.int8),
        np.where(compared, similarity, np.nan),
    )


def _scored_by_fit(truth: Truth, found: Found) -> Found:
    """The same predictions with the best possible scores."""
    between = pairs(truth, found)
    about, closeness = _best_person(truth, between, oks(truth, found, between), len(found.image))
    best_first = np.lexsort((-closeness, found.image))
    stands = np.zeros(len(about), np.bool_)
    stands[best_first] = _first_of_each(about[best_first])
    return found.rescored(np.where(stands, closeness, -1.0))
