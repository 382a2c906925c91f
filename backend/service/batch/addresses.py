"""Where a cluster is: the forms of `--cluster`.

- `tcp://host:port` (or `tls://`): a Dask scheduler that runs already.
- `ssh:FILE` or `ssh://host1,host2`: machines on which scheduler and workers are started through SSH.
- `slurm:FILE`: jobs of Slurm, with the options of dask-jobqueue's SLURMCluster in a YAML file.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import EffigyError
from ...reading import read_text, reading

FORMS: Final = "tcp://host:port, ssh:hosts.txt, ssh://host1,host2 or slurm:options.yaml"
_LOCK: Final = Path(__file__).resolve().parents[3] / "requirements" / "batch.lock"
"""The exact list of what a cluster needs; the installation of the backend leaves it out."""
_PACKAGES: Final = ("distributed", "asyncssh", "dask_jobqueue")
_HOST: Final = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w][\w.-]*|\[[0-9a-fA-F:.]+\])(?::(?P<port>\d{1,5}))?")
_SLURM_OPTIONS: Final = {
    "account": str, "cores": int, "death_timeout": (int, float), "interface": str, "job_directives_skip": list,
    "job_extra_directives": list, "job_name": str, "job_script_prologue": list, "jobs": int, "local_directory": str,
    "log_directory": str, "memory": str, "python": str, "queue": str, "scheduler_options": dict, "shebang": str,
    "walltime": str, "worker_extra_args": list,
}  # fmt: skip
"""The options of SLURMCluster that fit one clip for each job, with their types, and `jobs`, the number of jobs at the
same time."""


@dataclass(frozen=True)
class SchedulerAddress:
    url: str


@dataclass(frozen=True)
class SshHost:
    name: str
    connect_options: dict[str, Any]
    """For `asyncssh.connect`; what is missing comes from the user's own SSH configuration."""
    gpu: bool = False
    python: str | None = None
    """The Python there, if it is not where this one is."""


@dataclass(frozen=True)
class SshAddress:
    url: str
    hosts: tuple[SshHost, ...]


@dataclass(frozen=True)
class SlurmAddress:
    url: str
    options: dict[str, Any]

    @property
    def jobs(self) -> int | None:
        return self.options.get("jobs")

    def cluster_options(self, needs_gpu: bool) -> dict[str, Any]:
        """The arguments of SLURMCluster: each job is one worker that takes one clip at a time and uses all the job's
        cores for it.
        """
        options = {name: value for name, value in self.options.items() if name != "jobs"}
        extra = list(options.pop("worker_extra_args", []))
        if needs_gpu:
            if not any("gpu" in directive.lower() for directive in options.get("job_extra_directives", [])):
                raise EffigyError(
                    f"{self.url}: the sheet asks for a GPU (device cuda), but job_extra_directives requests none: add "
                    "“--gres=gpu:1”, or write auto or cpu in the sheet."
                )
            extra += ["--resources", "GPU=1"]
        cores = options.pop("cores")
        # Any free port for Dask's web page: two batches may run on one machine.
        scheduler = {"dashboard_address": ":0"} | options.pop("scheduler_options", {})
        return options | {
            "cores": 1,
            "job_cpu": cores,
            "processes": 1,
            "scheduler_options": scheduler,
            "worker_extra_args": extra,
        }


Address = SchedulerAddress | SshAddress | SlurmAddress


def read_address(text: str) -> Address:
    """Read the argument of `--cluster` and the file that it names; raises an `EffigyError` for anything else."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    kind, _, rest = text.partition(":")
    if kind in ("tcp", "tls") and re.fullmatch(r"//[^/\s]+:\d+/?", rest):
        address: Address = SchedulerAddress(text)
    elif kind == "ssh" and rest.startswith("//"):
        address = SshAddress(text, tuple(_read_host(text, word) for word in rest[2:].split(",") if word.strip()))
    elif kind == "ssh" and rest:
        address = SshAddress(text, _read_hosts(Path(rest)))
    elif kind == "slurm" and rest and not missing:
        address = SlurmAddress(text, _read_options(Path(rest)))
    elif kind == "slurm" and rest:
        address = SlurmAddress(text, {})
    else:
        raise EffigyError(f"batch: cluster must be {FORMS}, but is “{text}”.")
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(_LOCK)]
        raise EffigyError(
            f"--cluster needs Dask, which is not installed in Effigy's Python ({missing[0]} is missing): install it "
            f"with `{shlex.join(command)}`."
        )
    if isinstance(address, SshAddress) and not address.hosts:
        raise EffigyError(f"{text} names no machines.")
    return address


def _read_hosts(file: Path) -> tuple[SshHost, ...]:
    """One machine a line: `[user@]host[:port] [gpu] [python=PATH]`; `#` begins a remark."""
    lines = [line.partition("#")[0].strip() for line in _text_of(file).splitlines()]
    return tuple(_read_host(f"{file}, line {number}", line) for number, line in enumerate(lines, 1) if line)


def _read_host(where: str, text: str) -> SshHost:
    name, *words = text.split()
    match = _HOST.fullmatch(name)
    if not match:
        raise EffigyError(f"{where}: “{name}” is no machine's name; write [user@]host[:port].")
    options: dict[str, Any] = {"host": match["host"].strip("[]")}
    if match["user"]:
        options["username"] = match["user"]
    if match["port"]:
        options["port"] = int(match["port"])
    gpu, python = False, None
    for word in words:
        if word == "gpu":
            gpu = True
        elif word.startswith("python="):
            python = word.removeprefix("python=")
        else:
            raise EffigyError(f"{where}: “{word}” is neither gpu nor python=PATH.")
    return SshHost(name, options, gpu, python)


def _read_options(file: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(_text_of(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EffigyError(f"{file} is no YAML that can be read: {' '.join(str(error).split())}.") from error
    if not isinstance(options, dict):
        raise EffigyError(f"{file} must hold one option a line, such as “queue: render”.")
    for name, value in options.items():
        if name not in _SLURM_OPTIONS:
            raise EffigyError(f"{file}: there is no option “{name}”; the options are {', '.join(_SLURM_OPTIONS)}.")
        if not isinstance(value, _SLURM_OPTIONS[name]) or isinstance(value, bool):
            raise EffigyError(f"{file}: {name} cannot be “{value}”.")
    for name in ("cores", "memory"):
        if name not in options:
            raise EffigyError(f"{file} needs the option {name}: how much one clip gets (4 cores and 4GB are enough).")
    if options["cores"] < 1 or options.get("jobs", 1) < 1:
        raise EffigyError(f"{file}: cores and jobs must be 1 or more.")
    return options


def _text_of(file: Path) -> str:
    with reading(file, "list of machines", "write it again"):
        return read_text(file, "list of machines", "write it again")
