"""Several processes as one job, as torchrun starts them; without torchrun, rank 0 of 1.

    with connect("auto") as world:  # in the command, around everything that may fail
        ...
        results = world.collect([work_on(item) for item in world.share(items)])

Only messages between the ranks pass through here; DDP exchanges the gradients by itself.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from dhn.base.errors import DhnError, SettingError

if TYPE_CHECKING:
    import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a job, seen from one of them.

    The methods except `share` and `once` are collectives: every rank calls them, in the same
    order. They go through gloo, so none of them waits for a GPU. If a process has died, they
    raise RuntimeError at once in all others, which `connect` turns into an orderly end.

    Attributes:
        rank: the number of this process, 0 to size - 1 over all machines.
        size: the number of processes.
        device: the name of the device on which this process computes, for `select_device`.
        restarted: whether torchrun started the processes anew after one of them had died.
        local_size: the number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"
    restarted: bool = False
    _store: "dist.Store | None" = None
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is rank 0: the one that prints, scores and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share: every `size`-th item. Each item is in the share of one rank."""
        return items[self.rank :: self.size]

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.total([0.0])

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in at least one rank."""
        return self.total([float(flag)])[0] > 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over the ranks, element by element, in float64."""
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, in rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[T] | None = [value] * self.size if self.main else None
        dist.gather_object(value, values)
        return values or []

    def collect(self, results: Sequence[T]) -> list[T]:
        """Puts together, in rank 0, what each rank made of its `share`.

        Returns:
            the results in the order of the items; in all other ranks, an empty list.
        """
        shares = self.gather(results)
        return [shares[i % self.size][i // self.size] for i in range(sum(map(len, shares)))]

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def once(self, name: str, make: Callable[[], str]) -> str:
        """What `make` returned in rank 0, which calls it once since torchrun started the job.

        The job outlives a restart of its processes. This is how a restarted run finds the folder
        that it chose.
        """
        if self._store is None:
            return make()
        key = f"dhn/{name}"
        if self.main and not self._store.check([key]):
            self._store.set(key, make())
        return self._store.get(key).decode()  # waits until it is there


ALONE = World()


@contextlib.contextmanager
def connect(
    device: str = "auto", *, patience: timedelta = timedelta(minutes=30)
) -> Iterator[World]:
    """Joins the processes that torchrun started, and leaves them again.

    If ranks fail, the exception is raised in the first one that failed. The others, which fail
    because it did or for the same reason, exit silently with code 1.

    Args:
        device: as for `select_device`; `auto` and `cuda` give each process a GPU of its own.
        patience: how long the ranks wait for one that is alive but does not answer.

    Raises:
        SettingError: there is no such device, or not one for each process.
        DhnError: another process died without reporting an error.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World(device=device)
        return
    import torch.distributed as dist

    rank, size, local_rank, restarts = (
        int(os.environ[name])
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    )
    job_store, _, _ = next(dist.rendezvous("env://"))
    # torchrun's store outlives a restart and still holds the addresses of the dead processes, so
    # each start needs names of its own.
    store = dist.PrefixStore(f"dhn/start {restarts} of {size}", job_store)
    with _first_failure_speaks(store):
        device = _local_device(device, local_rank, size)
        if size > 1:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
                store=dist.PrefixStore("group", store),
                rank=rank,
                world_size=size,
                timeout=patience,
            )
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        yield World(rank, size, device, restarts > 0, job_store, local_size)
        # Not after a failure: this would wait for work that the others never finish.
        if size > 1:
            dist.destroy_process_group()


@contextlib.contextmanager
def _first_failure_speaks(store: "dist.Store") -> Iterator[None]:
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not _is_first(store):
            raise SystemExit(1) from error
        import torch.distributed as dist

        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise DhnError(
                "another process of this job died without a word (killed? out of memory?) or "
                "hangs; torchrun's report names it"
            ) from error
        raise


def _is_first(store: "dist.Store") -> bool:
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:
        return True  # the store is gone, so nobody knows; two reports are better than none


def _local_device(name: str, local_rank: int, size: int) -> str:
    import torch

    from dhn.base.device import select_device

    device = select_device(name)
    if size == 1 or device.type == "cpu":
        return str(device)
    if device.type == "mps":
        if name == "auto":
            return "cpu"
        raise SettingError("device", name, "serves one process; take cpu, or start one process")
    if device.index is not None:
        raise SettingError("device", name, f"is one GPU for {size} processes; leave the number out")
    if local_rank >= torch.cuda.device_count():
        raise SettingError(
            "device",
            name,
            f"this machine has {torch.cuda.device_count()} GPUs, too few for process "
            f"{local_rank + 1}; start as many processes as there are GPUs, or take cpu",
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"
