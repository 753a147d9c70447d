"""Snakemake that asks every second how jobs are: the Slurm plugin would ask less and less often, which spares a real scheduler."""

from __future__ import annotations

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def one_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = one_second
    sys.exit(main())
