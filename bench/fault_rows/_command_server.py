"""Carries out commands of the backend, each in a process forked from this one.

    python -m bench.fault_rows._command_server

A process that imports PyTorch takes seconds to start; a fork takes none, and is killed like any other process. A line
on stdin is an order: {"arguments": [...], "out": FILE}. Lines on stdout answer it: {"pid": N} when the process has been
started and {"pid": N, "code": C} when it has ended; stdout and stderr of the process are in FILE.out and FILE.err.

Trainings of the preset draft are small here, and save a checkpoint every half second, so that many a kill falls into
its writing.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from functools import partial
from typing import Any, Final

STEPS: Final = 45
_IMPORTED: Final = (
    "avatar.export",
    "avatar.render",
    "footage.build",
    "service.cli",
    "service.terminal",
    "tracking.after.head_matte",
    "tracking.pipeline",
    "training.evaluation",
)


def main() -> None:
    _import_backend()
    print(json.dumps({"ready": True}), flush=True)
    running: set[int] = set()
    while True:
        if select.select([0], [], [], 0.005)[0]:
            line = sys.stdin.buffer.raw.readline()
            if not line:
                break
            pid = _start(json.loads(line))
            running.add(pid)
            print(json.dumps({"pid": pid}), flush=True)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _import_backend() -> None:
    for name in _IMPORTED:
        importlib.import_module(f"backend.{name}")
    from backend.avatar.settings import AvatarSettings
    from backend.training import presets, session, trainer

    small = {"filters": 4, "latent_size": 8, "chebyshev_order": 3, "neural_per_anchor": 1, "feature_size": 4}
    presets.PRESETS["draft"] = presets.Preset(size=64, warmup_steps=STEPS // 3, steps=STEPS, batch=2, refinement=False)
    trainer.AvatarSettings = partial(AvatarSettings, **small)
    session.EVERY_SECONDS = 0.5


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number, name in ((0, os.devnull), (1, f"{order['out']}.out"), (2, f"{order['out']}.err")):
            file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, number)
            os.close(file)
        from backend.service.cli import main as run_command

        code = run_command(order["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
