"""An update of the weights, and all that it changes: optimiser, average, loss scale."""

import contextlib
import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dhn.base.device import multiplies_bfloat16, repeatable
from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError
from dhn.base.native import check_trainable
from dhn.data.dataset import Batch
from dhn.model import PoseNetwork, channels_last
from dhn.model.normalise import Normalise
from dhn.training.finetune import freeze, parameter_groups
from dhn.training.loss import PoseLoss, pose_loss

if TYPE_CHECKING:  # with pydantic, which nothing here needs
    from dhn.training.settings import Config, Loss, Train


class Update(NamedTuple):
    """What became of one batch.

    Attributes:
        loss: means over its images; None where none of them could be read.
        images: images that were learnt from.
        applied: False where loss or gradient were not finite: weights, moments and running
            statistics are as before.
        overflow: whether it was not applied only because fp16's scale was too large for the
            gradient. The scale has been halved; such updates occur while it is being found.
    """

    loss: PoseLoss | None
    images: int
    applied: bool
    overflow: bool = False


class Learner:
    """A network and everything that changes it.

    Every process of `world` has a learner, calls its methods in the same order, and comes to the
    same weights. The running statistics that count are rank 0's.

    Args:
        config: the learner reads `loss`, `train` and `data.input_size`.
        model: the network, which is moved to `device`. All processes take rank 0's weights.
        device: where this process computes.
        world: the processes that share each batch.

    Attributes:
        model: the network.
        averaged: the network to use: with averaged weights (`train.ema`), or `model` itself.
        amp: what autocast computes in, or None.

    Raises:
        DhnError: the device has no kernels for training, or the settings do not fit it.
    """

    def __init__(
        self, config: "Config", model: PoseNetwork, device: torch.device, world: World = ALONE
    ) -> None:
        check_trainable(device.type)
        self.config = config
        self.device = device
        self.world = world
        self.model = channels_last(model.to(device))
        self._normalise = Normalise().to(device)
        if config.train.sync_bn and world.size > 1:
            if device.type != "cuda":
                raise DhnError("train.sync_bn: works between GPUs only; set it to false")
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if config.train.compile:
            self.model.compile()
        self._frozen = freeze(self.model, config.train.freeze)
        self._network: nn.Module = self.model
        if world.size > 1:
            # Takes rank 0's weights, and averages gradients while they are being computed.
            self._network = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.averaged = copy.deepcopy(self.model).eval() if config.train.ema else self.model
        self.amp = amp_dtype(config.train.amp, device)
        groups = parameter_groups(self.model, config.train.layer_decay)
        self._factors = [factor for factor, _ in groups]  # of the learning rate
        self.optimiser = _optimiser(config.train, [weights for _, weights in groups])
        # fp16 has no numbers for small gradients: the loss is scaled up before they are taken.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == torch.float16)
        self.updates = 0
        self._statistics = _Statistics(model)

    def update(
        self, parts: Sequence[Batch], batch_size: int, lr: float, foreground: float = 0
    ) -> Update:
        """Learns from one batch.

        The gradient is that of the sum of the images' losses, divided by `batch_size`, however the
        batch is cut into parts. An image that could not be read adds nothing.

        Args:
            parts: this process's share of the batch; they go through the network one by one.
            batch_size: images of the whole batch, including those that could not be read.
            lr: the learning rate.
            foreground: see `pose_loss`.
        """
        self.model.train()
        for layer in self._frozen:
            layer.eval()
        self._statistics.keep()
        self.optimiser.zero_grad(set_to_none=True)
        own = [part for part in parts if len(part.image)]
        counts = [len(part.image) for part in own]
        if not own:
            # This process has to take part, or the others would wait for it for ever.
            own, counts = [_blank(self.config.data.input_size, self.model.num_joints)], [0]
        losses = []
        for k, part in enumerate(own):
            alone = self._no_sync() if k + 1 < len(own) else contextlib.nullcontext()
            with repeatable(self.device), alone:
                losses.append(self._backward(part, counts[k] / batch_size, foreground))
        loss, images = self._mean(losses, counts)
        for group, factor in zip(self.optimiser.param_groups, self._factors, strict=True):
            group["lr"] = lr * factor
        applied = images > 0 and self._apply(loss.total)
        if not applied or not sum(counts):
            self._statistics.restore()  # batch norm has seen the batch all the same
        if applied:
            if self.averaged is not self.model:
                _move_average(self.averaged, self.model, self.config.train.ema, self.updates)
            self.updates += 1
        if not images:
            return Update(None, 0, True)
        overflow = self.scaler.is_enabled() and not applied and bool(torch.isfinite(loss.total))
        return Update(loss, images, applied, overflow)

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Adds up gradients here; the last part's update averages them over the processes."""
        if isinstance(self._network, DistributedDataParallel):
            return self._network.no_sync()
        return contextlib.nullcontext()

    def _backward(self, batch: Batch, share: float, foreground: float) -> PoseLoss:
        image = self._normalise(batch.image.to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            maps = self._network(image)
        mask, boxes = batch.mask, batch.boxes
        loss = pose_loss(
            maps,
            batch.keypoints.to(self.device, non_blocking=True),
            None if mask is None else mask.to(self.device, non_blocking=True),
            self.config.loss,
            None if boxes is None else boxes.to(self.device, non_blocking=True),
            input_size=self.config.data.input_size,
            foreground=foreground,
        )
        # The loss is a mean over this part; DDP will take the mean over the processes.
        self.scaler.scale(loss.total * (share * self.world.size)).backward()
        return loss

    def _mean(self, losses: Sequence[PoseLoss], images: Sequence[int]) -> tuple[PoseLoss, int]:
        """The mean of the parts' means over all processes, and the number of images."""
        rows = torch.stack([torch.stack(loss.parts()).detach().float() for loss in losses])
        sums = (rows * torch.tensor(images, device=rows.device)[:, None]).sum(0)
        count = float(sum(images))
        if self.world.size > 1:
            count, *values = self.world.total([count, *sums.tolist()])
            sums = torch.tensor(values)
        total, *heatmaps, flat, pull, push = sums / max(1, count)
        return PoseLoss(total, heatmaps, flat, pull, push), int(count)

    def _apply(self, loss: Tensor) -> bool:
        """Clips and steps, if loss and gradient are finite."""
        self.scaler.unscale_(self.optimiser)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
        if finite:
            if limit := self.config.train.clip_grad_norm:
                clip_grads_with_norm_(self.model.parameters(), limit, norm)
            self.scaler.step(self.optimiser)
        self.scaler.update()
        return finite

    def agree(self) -> None:
        """Gives every process rank 0's running statistics; call it before `averaged` is used."""
        own = {name: buffer.cpu() for name, buffer in self.averaged.named_buffers()}
        self.averaged.load_state_dict(self.world.broadcast(own), strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights, which a checkpoint keeps separately."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Moments and the last learning rate are restored; all else is what the settings now say.
        groups = self.optimiser.state_dict()["param_groups"]
        moments = state["optimiser"]["state"]
        for group, saved in zip(groups, state["optimiser"]["param_groups"], strict=False):
            if isinstance(saved, dict) and isinstance(saved.get("lr"), float):
                group["lr"] = saved["lr"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if state["scaler"]:  # empty where the run has not used fp16 so far
            self.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]


def learning_rate(settings: "Train", share: float, epoch: float) -> float:
    """The learning rate after `share` (0 to 1) of the run, which is after `epoch` epochs."""
    if share < settings.warmup:
        return settings.lr * max(share / settings.warmup, 1e-3)
    if settings.schedule == "step":
        return settings.lr * settings.gamma ** sum(epoch >= m for m in settings.milestones)
    rest = (share - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * rest))


def foreground_weight(settings: "Loss", share: float) -> float:
    """What `pose_loss` gets as `foreground` after `share` (0 to 1) of the run."""
    start, end = settings.foreground
    return start + (end - start) * share


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype that `train.amp` means on a device; None computes in float32."""
    if amp == "auto":
        amp = "bf16" if multiplies_bfloat16(device) else "off"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def _optimiser(settings: "Train", groups: Sequence[list[nn.Parameter]]) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
    # The fused form needs one pass over hundreds of small tensors.
    weights = [{"params": group} for group in groups]
    return kind(weights, settings.lr, weight_decay=settings.weight_decay, fused=True)


@torch.no_grad()
def _move_average(average: PoseNetwork, model: PoseNetwork, decay: float, updates: int) -> None:
    """Moves weights and running statistics towards the model's; counters are copied."""
    # In the first updates a long memory would hold fresh weights and nothing else. (This is why
    # torch's AveragedModel does not serve: it begins with a copy and keeps one decay, and its
    # counter and its prefix would become part of the weights that others open.)
    decay = min(decay, (1 + updates) / (10 + updates))
    ours, theirs = average.state_dict(), model.state_dict()
    floating = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_([ours[n] for n in floating], [theirs[n] for n in floating], 1 - decay)
    for name in ours.keys() - floating:
        ours[name].copy_(theirs[name])


def _blank(input_size: int, num_joints: int) -> Batch:
    """A black image without people."""
    image = torch.zeros(1, 3, input_size, input_size, dtype=torch.uint8)
    return Batch(image, torch.zeros(1, 1, num_joints, 3), None, [], [""])


class _Statistics:
    """A copy of a network's running statistics, to go back to."""

    def __init__(self, model: PoseNetwork) -> None:
        buffers = list(model.buffers())
        # In lists of one dtype, each copied by one kernel.
        self._lists = [
            [b for b in buffers if b.is_floating_point()],
            [b for b in buffers if not b.is_floating_point()],
        ]
        self._copies = [[torch.empty_like(b) for b in buffers] for buffers in self._lists]

    def keep(self) -> None:
        for copies, buffers in zip(self._copies, self._lists, strict=True):
            torch._foreach_copy_(copies, buffers)

    def restore(self) -> None:
        for copies, buffers in zip(self._copies, self._lists, strict=True):
            torch._foreach_copy_(buffers, copies)
