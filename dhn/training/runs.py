"""Run folders: their names and contents, and how a run is stopped and resumed."""

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout

from dhn.base.distributed import ALONE, World
from dhn.base.environment import environment
from dhn.base.errors import DhnError, SettingError
from dhn.base.files import write_json, written_whole
from dhn.data.joints import JointSet
from dhn.training.config import load_config, override_config
from dhn.training.learner import Learner
from dhn.training.record import loss_parts
from dhn.training.restored import check_restored
from dhn.training.settings import Config
from dhn.weights.checkpoint import Checkpoint, load_checkpoint, serialised, write_serialised

LOCK = ".lock"  # in a run folder, while a process trains there


class StoppedError(DhnError):
    """A signal stopped the training.

    Attributes:
        run: the folder from which it goes on.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(f"{run}: the training was stopped; it goes on from last.pt")
        self.run = run


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def new_run(config: Config) -> Path:
    """Makes an empty folder for a new run, named after the network, the data and the time.

    Runs that begin in the same second get folders of their own: -2, -3 and so on.
    """
    data = "+".join(Path(source.path).stem for source in config.data.sources)
    kind = f"{config.network.name}_w{config.network.width}_{data}"
    name = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        run = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            run.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise DhnError(f"{run}: cannot be made ({error.strerror or error})") from error
    return run


def discard_unused(run: Path) -> None:
    """Removes the folder of a run that wrote nothing."""
    with contextlib.suppress(OSError):  # it is not empty
        run.rmdir()
        run.parent.rmdir()


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder, which is made if need be.

    The lock ends with this process, however it ends. A folder that was made here and in which
    nothing was written disappears again.

    Raises:
        DhnError: another process trains in this folder, or nothing can be written there.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    lock = FileLock(run / LOCK)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:  # which is an OSError, too
        raise DhnError(
            f"{run}: is being trained by another process; wait for it, or name another folder"
        ) from error
    except OSError as error:
        raise DhnError(f"{run}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        (run / LOCK).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def resumed_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings of a run, with some of them changed.

    They lie in its last checkpoint. A run that was killed before the first one has them in
    `config.yaml`, and starts again.

    Raises:
        SettingError: `run` holds no run.
        DhnError: its checkpoint cannot be read, or an override is wrong.
    """
    if (run / "last.pt").exists():
        return override_config(load_checkpoint(run / "last.pt").config, overrides, str(run))
    if (run / "config.yaml").exists():
        return load_config(str(run / "config.yaml"), overrides)
    raise SettingError("resume", run, "no last.pt there; give the folder of a run")


def open_run(config: Config, run: Path) -> None:
    """Writes what does not change while a run trains."""
    with written_whole(run / "config.yaml") as path:
        path.write_text(config.to_yaml())
    write_json(run / "environment.json", environment(), indent=2)


@dataclass
class Position:
    """How far a run is.

    Attributes:
        epoch: how many epochs are done.
        step: how many updates of the next one are done.
        best_ap: the best AP so far; -1 before the first.
        since_best: how many scorings there were since then.
    """

    epoch: int = 0
    step: int = 0
    best_ap: float = -1.0
    since_best: int = 0


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
            weights=learner.averaged.state_dict(),
            config=self.config.model_dump(mode="json"),
            progress=progress,
        )
        content = serialised(checkpoint)  # once, for all names
        for name in names:
            write_serialised(self.run / name, content)
        self._saved = time.monotonic()

    def save_epoch(
        self, at: Position, ap: float | None, learner: Learner, record: Stateful
    ) -> None:
        """Writes all that the end of an epoch asks for; `ap` is None where it was not scored."""
        names = []
        if ap is not None:
            at.since_best += 1
            if ap > at.best_ap:
                at.best_ap, at.since_best = ap, 0
                names.append("best.pt")
        keep = self.config.train.keep_every
        if keep and at.epoch % keep == 0:
            names.append(f"epoch{at.epoch}.pt")
        # last.pt comes last: a kill before it repeats the end of the epoch.
        self.save([*names, "last.pt"], at, learner, record)

    def due(self) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every`."""
        return time.monotonic() - self._saved >= 60 * self.config.train.checkpoint_every

    def restore(self, learner: Learner, record: Stateful) -> Position:
        """Goes back to `last.pt`, if there is one.

        Raises:
            DhnError: it cannot be read, or holds another network.
        """
        checkpoint = self.world.broadcast(self._last() if self.world.main else None)
        if checkpoint is None:
            return Position()
        self._check(checkpoint)
        progress = checkpoint.progress
        try:
            parts = loss_parts(self.config.network.name)
            check_restored(checkpoint.weights, progress, learner, parts)
            _check_random_state(progress["random"])
        except ValueError as error:
            raise DhnError(f"{self.run / 'last.pt'}: cannot be resumed, {error}") from error
        learner.averaged.load_state_dict(checkpoint.weights)
        learner.model.load_state_dict(progress["weights"])
        learner.load_state_dict(progress)
        record.load_state_dict(progress["record"])
        _restore_random_state(progress["random"])
        return Position(
            progress["epoch"],
            progress["step"],
            progress["best_ap"],
            progress.get("since_best", 0),  # runs of dhn 0.1 did not count them
        )

    def _check(self, checkpoint: Checkpoint) -> None:
        path = self.run / "last.pt"
        if not isinstance(checkpoint.network, dict) or not isinstance(checkpoint.progress, dict):
            raise DhnError(f"{path}: cannot be resumed, its network or progress is no dictionary")
        for key, value in self.network.items():
            before = checkpoint.network.get(key)
            if before != value:
                raise DhnError(
                    f"{path}: its network has {key} {before}, which cannot become {value}"
                )
        lacks = {"weights", "record", "random", "scaler"} - checkpoint.progress.keys()
        if lacks:
            raise DhnError(
                f"{path}: cannot be resumed, it lacks {', '.join(sorted(lacks))} "
                "(an earlier version of dhn wrote it); it can still be used"
            )

    def _last(self) -> Checkpoint | None:
        # A kill may have left files that were only half written.
        for name in ("*.pt", "*.yaml", "*.json"):
            for leftover in self.run.glob("." + name):
                leftover.unlink()
        path = self.run / "last.pt"
        return load_checkpoint(path) if path.exists() else None


def seed_everything(seed: int) -> None:
    """Seeds every global random generator. Samples have generators of their own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _random_state() -> dict[str, Any]:
    """The state of every global random generator, as plain values and tensors.

    Nothing in dhn draws from them during a training, but a library may.
    """
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _check_random_state(state: Any) -> None:
    """Raises ValueError unless `state` can be restored; restores what was there before."""
    before = _random_state()
    try:
        _restore_random_state(state)
    except Exception as error:  # each generator has kinds of its own for what it cannot take
        raise ValueError("its random states are not those of the generators") from error
    finally:
        _restore_random_state(before)


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy | {"state": numpy["state"] | {"key": key}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():  # else the run goes on on another machine
        torch.cuda.set_rng_state_all(state["cuda"])


class StopSignals:
    """Remembers SIGINT and SIGTERM, for the loop to ask between updates.

    A second SIGINT (Ctrl-C) interrupts at once. A second SIGTERM does not, because schedulers and
    torchrun may both send one.
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
        """A block that the first signal ends at once, with `error`."""
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
