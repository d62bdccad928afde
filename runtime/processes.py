"""The processes of one distributed run, and what they exchange."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import UserError
from runtime.launch import process_count, process_index


@dataclass(frozen=True)
class Processes:
    """Several processes that do the same steps in time; by default this one alone.

    Attributes:
        rank: number of this process, from 0; process 0 is the one that writes shared files.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Meet the other processes that torchrun, accelerate or SLURM's srun started.

        Without a launcher there is only this one. Tensors travel by NCCL between GPUs and by
        gloo between CPUs.

        Raises:
            UserError: the launcher's environment does not say where to meet.
        """
        count = process_count()
        if count == 1:
            return cls()
        if not torch.distributed.is_initialized():
            missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
            if missing:
                raise UserError(
                    f"WORLD_SIZE says {count} processes but {' and '.join(missing)} is not set; "
                    "start them with torchrun or accelerate launch"
                )
            if device.type == "cuda":
                torch.cuda.set_device(device)
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(process_index(), count)

    @property
    def is_main(self) -> bool:
        """Return whether this process writes what all share."""
        return self.rank == 0

    def share(self, items: list) -> list:
        """This process's part of ``items``: every ``count``-th, from its rank on."""
        return items[self.rank :: self.count]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor of equal shape on every process by the sum over them; returns it."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """End the exchange; the process goes on alone."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
