"""A real worker with its real client for a row, and what a worker may leave behind: processes and array files."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.fault_sandbox import ROOT

if TYPE_CHECKING:
    from blender_addon.worker.client import WorkerClient

PATIENCE: Final = 30.0
"""Seconds after which something counts as hanging."""


def make_client(home: Path, log: list[str]) -> WorkerClient:
    """The client of `python -m backend serve`."""
    from blender_addon.worker.client import WorkerClient

    # PyTorch keeps compiled kernels in the temporary folder otherwise, where the rows look for what is left.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(home / "torch")
    environment = os.environ | {"EFFIGY_USER": str(home / "effigy")}
    return WorkerClient([sys.executable, "-m", "backend", "serve"], str(ROOT), environment, log.append)


def until(condition: Callable[[], object], client: WorkerClient, seconds: float = PATIENCE) -> bool:
    """Pumps the client until the condition holds; returns whether it did within this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        client.pump()
        time.sleep(0.01)
    return True


def backend_processes() -> set[int]:
    """The processes of workers and jobs. A sandbox has process numbers of its own, so these are this row's."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word in (b"backend", b"backend.service.job_process") for word in words):
                found.add(int(folder.name))
    return found


def exchange_files() -> set[Path]:
    """Everything in the system's folders for temporary files and for shared memory, without the row's own folder."""
    own = {ROOT, Path(os.environ["EFFIGY_FAULT_SANDBOX"])}
    folders = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    found = {path for folder in folders if folder.is_dir() for path in folder.rglob("*")}
    return {
        path for path in found if own.isdisjoint((path, *path.parents)) and not any(path in top.parents for top in own)
    }


def own_files(client: WorkerClient) -> set[Path]:
    """The client's folders for arrays with what is in them; they exist while its worker runs."""
    folders = {Path(folder) for folder in client.array_folders}
    return folders | {path for folder in folders for path in folder.rglob("*")}
