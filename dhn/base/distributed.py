"""Several processes as one job, as torchrun starts them; without torchrun, rank 0 of 1.

    with connect("auto") as world:  # in the command, around everything that may fail
        ...
        results = world.collect([work_on(item) for item in world.share(items)])

Nothing but messages between the ranks goes through here: gradients are DDP's business.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from dhn.base.errors import DhnError

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
        rank: 0 to size - 1 over all machines.
        size: how many processes there are.
        device: the name of the device on which this one computes, for `select_device`.
        restarted: torchrun started the processes anew after one had died.
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"
    restarted: bool = False
    _store: "dist.Store | None" = None

    @property
    def main(self) -> bool:
        """Whether this is rank 0: the one that prints, scores and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share: every `size`-th item. The shares of all ranks are all items, once."""
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
        """What each rank made of its `share`, in the order of the items, in rank 0; else empty."""
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

    def once(self, name: str, value: str) -> str:
        """The value that was given first under this name in the life of the job.

        Restarts are the same job, so this is how a run finds again the folder that it named.
        """
        if self._store is None:
            return value
        return self._store.compare_set(f"dhn/{name}", "", value).decode()


ALONE = World()


@contextlib.contextmanager
def connect(
    device: str = "auto", *, patience: timedelta = timedelta(minutes=30)
) -> Iterator[World]:
    """Joins the processes that torchrun started, and leaves them again.

    If ranks fail, the first one's exception is raised in it; the others, which fail because it
    did (or for the same reason), exit with code 1 and say nothing.

    Args:
        device: as for `select_device`; `auto` and `cuda` give each process a GPU of its own.
        patience: how long ranks wait for one that lives but does not answer.

    Raises:
        DhnError: there is no such device, or not one for each process; or another process died
            without being able to say why.
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
    # torchrun's store outlives a restart, and with it the addresses of the dead: each start of
    # the processes needs names of its own.
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
        yield World(rank, size, device, restarts > 0, job_store)
        # Not after a failure: it would wait for work that the others never finish.
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
        return True  # the store is gone: who knows; better said twice than never


def _local_device(name: str, local_rank: int, size: int) -> str:
    import torch

    from dhn.base.device import select_device

    device = select_device(name)
    if size == 1 or device.type == "cpu":
        return str(device)
    if device.type == "mps":
        if name == "auto":
            return "cpu"
        raise DhnError("--device mps: serves one process; take --device cpu, or start one")
    if device.index is not None:
        raise DhnError(f"--device {name}: is one GPU for {size} processes; leave the number out")
    if local_rank >= torch.cuda.device_count():
        raise DhnError(
            f"this machine has {torch.cuda.device_count()} GPUs, too few for process "
            f"{local_rank + 1}; give torchrun that --nproc-per-node, or take --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"
