"""Settings of where work over subjects is done; every stage that has such inherits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from runtime.config import setting
from runtime.errors import UserError


@dataclass(kw_only=True)
class SpreadSettings:
    """Where the work over subjects is done. What is computed depends on none of it but, in the
    last bits, on the number of threads."""

    engine: Literal["local", "ray"] = setting("local", resumable=True)
    """Processes of this machine, or of a Ray cluster (pip install 'triavatar[cluster]') whose
    machines share the folders."""
    engine_address: str | None = setting(None, resumable=True)
    """Address of the Ray cluster, e.g. auto (the one this machine belongs to) or ray://head:10001;
    without it Ray is started on this machine alone."""
    subjects_at_once: int = setting(1, resumable=True, at_least=1, at_most=1024)
    """Subjects worked on at once, each by a process of its own: on this machine, whose GPUs they
    share; with Ray on every GPU, or on every machine where there are none."""
    threads: int = setting(0, resumable=True, at_least=0, at_most=1024)
    """CPU threads of each process; 0 shares the machine's among them."""
    shard: str = setting("0/1", resumable=True)
    """Work on subjects i, i+n, i+2n, … of the list alone, written "i/n"."""

    removed_settings: ClassVar[dict[str, str]] = {
        "stale_after": "a dead process's subject is noticed at once; leave it out",
    }

    @property
    def here(self) -> bool:
        """Return whether this process does the work itself."""
        return self.engine == "local" and self.subjects_at_once == 1

    def share(self, names: list[str]) -> list[str]:
        """Return the names of the settings' shard."""
        first, step = parse_shard(self.shard)
        return names[first::step]

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: names the setting.
        """
        if self.engine_address is not None and self.engine != "ray":
            raise UserError("engine_address is of a Ray cluster; add --engine ray")
        parse_shard(self.shard)


def parse_shard(text: str) -> tuple[int, int]:
    """ "i/n" → (i, n).

    Raises:
        UserError: not two integers with 0 <= i < n.
    """
    if text == "auto":
        raise UserError(
            "shard 'auto' is gone; in a SLURM array write --shard "
            '"$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT", or spread one command with '
            "--subjects_at_once or --engine ray"
        )
    try:
        i, n = (int(part) for part in text.split("/"))
    except ValueError:
        i, n = -1, 0
    if not 0 <= i < n:
        raise UserError(f"shard '{text}' is not of the form i/n with 0 <= i < n, e.g. 0/8")
    return i, n
