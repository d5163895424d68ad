"""Run folders: their names, what lies in them, and how a run is stopped and taken up again."""

import contextlib
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dhn.base.distributed import ALONE, World
from dhn.base.environment import environment
from dhn.base.errors import DhnError
from dhn.base.files import write_json, written_whole
from dhn.data.joints import JointSet
from dhn.training.config import Config, load_config, override_config
from dhn.training.learner import Learner
from dhn.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def new_run(config: Config) -> Path:
    """A folder for a run, named by network, data and time."""
    data = Path(config.data.dataset).stem
    name = f"{config.network.name}_w{config.network.width}_{data}"
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def resumed_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings that a run was started with, some of them changed.

    A run that was killed before its first checkpoint has them in `config.yaml` and starts again.

    Raises:
        DhnError: `run` holds no run, or an override is wrong.
    """
    if (run / "last.pt").exists():
        return override_config(load_checkpoint(run / "last.pt").config, overrides, str(run))
    if (run / "config.yaml").exists():
        return load_config(str(run / "config.yaml"), overrides)
    raise DhnError(f"--resume {run}: no last.pt there; give the folder of a run")


def open_run(config: Config, run: Path) -> None:
    """Writes what does not change while a run trains."""
    with written_whole(run / "config.yaml") as path:
        path.write_text(config.to_yaml())
    write_json(run / "environment.json", environment(), indent=2)


@dataclass
class Position:
    """Where a run is: updates of an epoch that are done, and the best AP so far."""

    epoch: int = 0
    step: int = 0
    best_ap: float = -1.0


class Checkpoints:
    """Writes and reads all that a run needs to go on to the same weights, bit for bit.

    A sample depends on (seed, epoch, index) alone, so the position in the epoch stands for the
    loader and its workers. Only rank 0 reads and writes.
    """

    def __init__(
        self,
        run: Path,
        config: Config,
        network: dict[str, Any],
        joints: JointSet,
        world: World = ALONE,
    ) -> None:
        self.run = run
        self.config = config
        self.world = world
        self.network = network
        self.joints = joints
        self._saved = time.monotonic()

    def save(self, names: Sequence[str], at: Position, learner: Learner, record: Stateful) -> None:
        """Writes the same checkpoint under each of `names`, in this order."""
        if not self.world.main:
            return
        progress = asdict(at) | learner.state_dict()
        progress |= {"record": record.state_dict(), "random": _random_state()}
        # Whoever opens a checkpoint gets the averaged weights; those that learn lie beside them.
        progress["weights"] = learner.model.state_dict()
        checkpoint = Checkpoint(
            network=self.network,
            joints=self.joints,
            weights=learner.best.state_dict(),
            config=self.config.model_dump(mode="json"),
            progress=progress,
        )
        for name in names:
            save_checkpoint(self.run / name, checkpoint)
        self._saved = time.monotonic()

    def save_epoch(
        self, at: Position, ap: float | None, learner: Learner, record: Stateful
    ) -> None:
        """Writes all that the end of an epoch asks for; `ap` is None where it was not scored."""
        names = []
        if ap is not None and ap > at.best_ap:
            at.best_ap = ap
            names.append("best.pt")
        keep = self.config.train.keep_every
        if keep and at.epoch % keep == 0:
            names.append(f"epoch{at.epoch}.pt")
        # last.pt comes last: a kill before it repeats the end of the epoch.
        self.save([*names, "last.pt"], at, learner, record)

    def due(self) -> bool:
        """Whether the last one is older than `train.checkpoint_every`."""
        return time.monotonic() - self._saved >= 60 * self.config.train.checkpoint_every

    def restore(self, learner: Learner, record: Stateful) -> Position:
        """Takes up `last.pt`, if there is one.

        Raises:
            DhnError: it cannot be read, or is of another network.
        """
        checkpoint = self.world.broadcast(self._last() if self.world.main else None)
        if checkpoint is None:
            return Position()
        for key, value in self.network.items():
            if (before := checkpoint.network.get(key)) != value:
                raise DhnError(
                    f"{self.run / 'last.pt'}: its network has {key} {before}, which cannot become "
                    f"{value}"
                )
        progress = checkpoint.progress
        if lacks := {"weights", "record", "random", "scaler"} - progress.keys():
            raise DhnError(
                f"{self.run / 'last.pt'}: cannot be resumed, it lacks {', '.join(sorted(lacks))} "
                "(an earlier version of dhn wrote it); it can still be used"
            )
        learner.best.load_state_dict(checkpoint.weights)
        learner.model.load_state_dict(progress["weights"])
        learner.load_state_dict(progress)
        record.load_state_dict(progress["record"])
        _restore_random_state(progress["random"])
        return Position(progress["epoch"], progress["step"], progress["best_ap"])

    def _last(self) -> Checkpoint | None:
        # What a kill left of a checkpoint that was being written.
        for leftover in self.run.glob(".*.pt"):
            leftover.unlink()
        path = self.run / "last.pt"
        return load_checkpoint(path) if path.exists() else None


def seed_everything(seed: int) -> None:
    """Every global random generator. Samples have generators of their own (`dhn.data`)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _random_state() -> dict[str, Any]:
    """Of every global random generator, as plain values and tensors.

    Nothing here draws from them, but a library may.
    """
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy | {"state": numpy["state"] | {"key": key}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():  # else: another machine
        torch.cuda.set_rng_state_all(state["cuda"])


class StopSignals:
    """Notes SIGINT and SIGTERM, to be asked for between updates; a second Ctrl-C interrupts.

    A second SIGTERM does not: schedulers and torchrun may both send one.
    """

    def __init__(self) -> None:
        self._received = False
        self._at_once = False

    def __bool__(self) -> bool:
        return self._received

    def __enter__(self) -> "StopSignals":
        self._before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self, error: Exception) -> Iterator[None]:
        """A block that the first signal ends with `error`, wherever it is."""
        self._at_once = True
        try:
            if self._received:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            raise error from None
        finally:
            self._at_once = False

    def _receive(self, number: int, _: object) -> None:
        if self._at_once or (self._received and number == signal.SIGINT):
            raise KeyboardInterrupt
        self._received = True
