"""A throw-away Slurm of one node on this machine: Debian's packages, no accounting, and the CPUs, memory and two GPUs that it claims to have."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
ETC = Path("/etc/slurm")
# The node's hardware is taken from here, not from the machine, so that jobs run side by side on a small one. A GPU needs a device file; any will do.
CONF = """ClusterName=actspace
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=2
GresTypes=gpu
NodeName=localhost CPUs=16 RealMemory=128000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=1-0 State=UP
"""


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start Slurm, or skip the test with a reason; at the end stop it and put back the configuration that was there."""
    _install()
    kept = folder / "etc"
    shutil.copytree(ETC, kept, dirs_exist_ok=True)
    try:
        _start(folder)
        yield
    finally:
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], capture_output=True)
        for daemon in ("slurmd", "slurmctld", "munged"):
            _stop(folder / f"{daemon}.pid")
        shutil.rmtree(ETC)
        shutil.copytree(kept, ETC)


def _install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("a Slurm is started by root on Debian alone")
    if shutil.which("slurmctld") and subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0:
        pytest.skip("this machine belongs to a Slurm cluster already")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "text": True}
        subprocess.run(["apt-get", "update"], **quiet)
        got = subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], **quiet)
        if got.returncode:
            pytest.skip(f"apt-get cannot install Slurm: {got.stderr.strip().splitlines()[-1]}")
    ETC.mkdir(exist_ok=True)


def _start(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (ETC / "slurm.conf").write_text(CONF.format(folder=folder))
    (ETC / "gres.conf").write_text("Name=gpu File=/dev/tty[0-1]\n")
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        _start_munge(folder)
    subprocess.run(["slurmctld"], check=True)
    subprocess.run(["slurmd", "-N", "localhost"], check=True)
    wait_for(lambda: "idle" in asked("sinfo", "-h", "-o", "%T"), 60, "the node to be idle")


def _start_munge(folder: Path) -> None:
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    as_munge = ["setpriv", "--reuid=munge", "--regid=munge", "--init-groups"]
    subprocess.run([*as_munge, "/usr/sbin/munged"], check=True, capture_output=True)
    shutil.copy(run / "munged.pid", folder / "munged.pid")


def _stop(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, 15)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, f"{pid_file.stem} to end")


def asked(*command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def jobs() -> list[dict[str, str]]:
    """Return all jobs since the start, in the order of their submission, with the fields that `scontrol` shows."""
    lines = asked("scontrol", "show", "job", "--detail", "--oneliner").splitlines()
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return sorted((job for job in found if "JobId" in job), key=lambda job: int(job["JobId"]))


def jobs_of(rule: str, state: str = "") -> list[dict[str, str]]:
    """Return the jobs of a rule or a group: those in one state, or all."""
    named = [job for job in jobs() if re.match(rf"rule_{rule}(_|$)", job.get("Comment", ""))]
    return [job for job in named if state in job["JobState"]]


def wait_for(happened, seconds: float, what: str) -> None:
    """Wait until a function returns something true."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.2)
