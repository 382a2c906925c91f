"""A real Dask scheduler and real workers on loopback, each in a process of its own, which ends with this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNTIL_STDIN_CLOSES = """
import os, runpy, sys, threading

def watch():
    sys.stdin.buffer.read()
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module and ends when stdin closes: also when the tests are killed, on every system."""


def start_worker(url: str, name: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A worker in one process, so that killing it is losing a machine. It starts in a folder without Effigy."""
    return _dask(
        "distributed.cli.dask_worker",
        [url, "--no-nanny", "--nthreads", "1", "--name", name, "--no-dashboard", "--local-directory", str(folder)],
        *options,
        folder=folder,
    )


@contextmanager
def dask_cluster(folder: Path, *names: str) -> Iterator[tuple[str, dict[str, subprocess.Popen[bytes]]]]:
    """The scheduler's address, and the processes of its workers by name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"tcp://127.0.0.1:{port}"
    scheduler = _dask(
        "distributed.cli.dask_scheduler", ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], folder=folder
    )
    workers = {name: start_worker(url, name, folder) for name in names}
    try:
        yield url, workers
    finally:
        for process in (*workers.values(), scheduler):
            process.terminate()
        for process in (*workers.values(), scheduler):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _dask(module: str, arguments: list[str], *options: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = open(folder / f"{module.rpartition('.')[2]}.log", "ab")  # noqa: SIM115 - the process keeps it open
    return subprocess.Popen(
        [sys.executable, "-c", UNTIL_STDIN_CLOSES, module, *arguments, *options],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
    )
