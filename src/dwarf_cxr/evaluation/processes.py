"""Several processes that evaluate together, each a share of the images.

`torchrun` (or `fabric run`) starts the same command several times, on one machine or on many; every
process then takes whole batches of the index range. Nothing is padded: a sampler that repeats
images to make shares equal makes other metrics. There is no exchange until all images are scored.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed

from dwarf_cxr.errors import ConfigError

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=2)
"""How long a process waits for the slowest."""


@dataclass(frozen=True)
class Processes:
    """This process among those that evaluate together; by default it is alone."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, images: int, batch: int) -> slice:
        """The images of this process, of so many in all.

        Shares are of whole batches, so that every image is predicted together with the same others
        as in one process: in other batches its scores would differ in their last digits.
        """
        batches = -(-images // batch)
        begin, end = (batches * rank // self.count for rank in (self.rank, self.rank + 1))
        return slice(min(begin * batch, images), min(end * batch, images))

    def gather(self, mine: T) -> list[T] | None:
        """What every process has, in order, for the first one; None for the others."""
        if self.count == 1:
            return [mine]
        every: list[T] | None = [mine] * self.count if self.first else None
        torch.distributed.gather_object(mine, every)
        return every

    def from_first(self, value: T | None) -> T:
        """What the first process has, for all."""
        if self.count == 1:
            box = [value]
        else:
            box = [value if self.first else None]
            torch.distributed.broadcast_object_list(box)
        assert box[0] is not None
        return box[0]


ALONE = Processes()


@contextlib.contextmanager
def started_together() -> Iterator[Processes]:
    """The processes that a launcher started with this one, as its environment says.

    Raises:
        ConfigError: the environment speaks of several processes, but not of how they meet, or
            its number of processes is none.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if not count.isdecimal():
        raise ConfigError(f"WORLD_SIZE = {count!r} in the environment is no number; unset it")
    if int(count) <= 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']} in the environment, but no "
            f"{', '.join(missing)}: start the processes with torchrun, or unset WORLD_SIZE"
        )
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
        # one that leaves while another still talks to it can be aborted
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
