"""How well a network does while it learns: AP of the held-out split, and images of its maps."""

import logging
from collections.abc import Iterator

import numpy as np
import torch

from dhn.base.distributed import World
from dhn.data.annotations import Annotations
from dhn.data.dataset import PoseDataset
from dhn.evaluation.evaluate import predict_dataset
from dhn.evaluation.scoring import score
from dhn.inference.predictor import Predictor
from dhn.training.learner import Learner
from dhn.training.settings import Config
from dhn.training.sheets import draw_sheets

_log = logging.getLogger(__name__)

SHEETS = 4  # images for TensorBoard at each evaluation


def score_held_out(
    config: Config, learner: Learner, held_out: Annotations, world: World
) -> dict[str, float]:
    """AP and the like of the averaged weights, where there are any; the same in every process."""
    learner.agree()
    predictor = _predictor(learner, held_out, config.data.eval_size or config.data.input_size)
    results, failures = predict_dataset(predictor, held_out, world=world)
    for failure in failures:
        _log.warning(failure)
    sigmas = held_out.joints.sigmas
    stats = score(held_out.raw, results, held_out.scoring, sigmas) if world.main else {}
    return world.broadcast(stats)


def sheets(config: Config, learner: Learner, annotations: Annotations) -> Iterator[np.ndarray]:
    """What the network makes of the first images, whole and centred; drawn when asked for."""
    size = config.data.input_size
    dataset = PoseDataset(annotations, input_size=size, augmentation=None)
    yield from draw_sheets(_predictor(learner, annotations, size), dataset, SHEETS, config.loss)


def _predictor(learner: Learner, annotations: Annotations, input_size: int) -> Predictor:
    return Predictor(
        learner.averaged,
        annotations.joints,
        device=learner.device,
        input_size=input_size,
        precision="bfloat16" if learner.amp == torch.bfloat16 else "float32",
    )
