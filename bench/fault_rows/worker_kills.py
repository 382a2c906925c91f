"""The worker is killed while it poses avatars, and while a job of it runs."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.fault_rows import _workers
from bench.fault_rows.outcome import Outcome, Place
from bench.fault_sandbox import ROOT

if TYPE_CHECKING:
    from blender_addon.worker.client import WorkerClient

TITLE: Final = "worker killed under posing requests, and while a job runs"
ASKED: Final = "client alive, restarted, no orphan, no file left in shared memory or the temporary folder"
FULL: Final = 70
"""50 under posing requests and 20 while a job runs."""
SHORT: Final = 2
JOB_SHARE: Final = 20 / 70
JOB_SECONDS: Final = 4.0
"""After its start, within which a job's worker is killed."""
SECONDS_TO_STOP: Final = 15.0
"""Within which a job that has lost its worker has ended."""


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome, draw, log = Outcome(), random.Random(seed), []
    before = _workers.exchange_files()
    client = _workers.make_client(place.home, log)
    jobs = max(1, round(count * JOB_SHARE))
    try:
        avatar = _untrained_avatar(place.scratch / "person.effigy")
        for number in range(count - jobs):
            moment = draw.uniform(0.0, 0.3)
            outcome.record(f"posing, killed {number + 1}", _kill_under_posing(client, str(avatar), moment, before))
        for number in range(jobs):
            folder = place.scratch / f"job-{number}"
            folder.mkdir()
            moment = draw.uniform(0.0, JOB_SECONDS)
            outcome.record(f"job, killed {number + 1}", _kill_under_job(client, folder, moment, before))
    finally:
        client.close()
    if left := _workers.exchange_files() - before:
        outcome.failures.append(f"left at the end: {_names(left)}")
    if running := _workers.backend_processes():
        outcome.failures.append(f"processes that run at the end: {len(running)}")
    outcome.figures["kills"] = f"{count - jobs} posing, {jobs} in a job"
    return outcome


def _kill_under_posing(client: WorkerClient, avatar: str, moment: float, before: set[Path]) -> str | None:
    answers: list[object] = []
    request = {"avatar": avatar, "pose": {}, "view": [0, 0, 1]}
    try:
        client.call("avatar.splats", request, timeout=_workers.PATIENCE)
    except Exception as error:
        return f"it did not answer before ({error})"
    first, asked = client.pid, 0
    for number in range(12):
        latest = "viewport" if number % 3 else None
        client.request("avatar.splats", request, answers.append, answers.append, latest=latest)
        asked += latest is None
    _workers.until(lambda: False, client, moment)
    os.kill(first, signal.SIGKILL)
    if not _workers.until(lambda: not client.busy and len(answers) >= asked and client.pid != first, client, 60.0):
        return f"of {asked} requests {len(answers)} were answered, or the client took the killed worker for alive"
    # The next worker is asked again.
    if errors := [answer for answer in answers if isinstance(answer, Exception)]:
        return f"{len(errors)} of {len(answers)} requests were not answered ({errors[0]})"
    return _after(client, avatar, first, before)


def _kill_under_job(client: WorkerClient, folder: Path, moment: float, before: set[Path]) -> str | None:
    video = ROOT / "assets" / "demo.mp4"
    job = client.start_job("import", {"video": video, "capture": folder / "clip.capture", "size": 64})
    if not _workers.until(lambda: job.name or job.finished, client) or job.finished:
        return f"the job did not start ({job.error})"
    first = client.pid
    _workers.until(lambda: job.finished, client, moment)
    was_running = not job.finished
    os.kill(first, signal.SIGKILL)
    if not _workers.until(lambda: job.finished and not client.alive, client):
        return "the job went on for the client after its worker had been killed"
    if was_running and not (job.state == "failed" and job.error and "killed" in job.error):
        return f"the job ended as {job.state} ({job.error})"
    if not _workers.until(lambda: not _workers.backend_processes(), client, SECONDS_TO_STOP):
        return "the job's process went on without its worker"
    if was_running and (left := [path.name for path in folder.iterdir() if path.name.startswith(".")]):
        return f"half-written files are left: {left}"
    return _after(client, None, first, before)


def _after(client: WorkerClient, avatar: str | None, first: int | None, before: set[Path]) -> str | None:
    """What is wrong after a worker was killed, None for nothing."""
    if left := _workers.exchange_files() - before - _workers.own_files(client):
        return f"left: {_names(left)}"
    try:
        if avatar:
            splats = client.call("avatar.splats", {"avatar": avatar, "pose": {}, "view": [0, 0, 1]}, timeout=60.0)
            if splats["means"].shape[1] != 3:
                return "the new worker's answer is wrong"
        else:
            client.call("hello", timeout=60.0)
    except Exception as error:
        return f"the worker was not restarted ({error})"
    if client.pid == first:
        return "the killed worker answers"
    if orphans := _workers.backend_processes() - {client.pid}:
        return f"{len(orphans)} processes run beside the new worker"
    return None


def _names(paths: set[Path]) -> list[str]:
    return sorted(map(str, paths))[:5]


def _untrained_avatar(path: Path) -> Path:
    import numpy as np
    import torch

    from backend.avatar.avatar import Avatar, build_networks, save_avatar
    from backend.avatar.settings import AvatarSettings
    from backend.head.formats import load_head

    torch.manual_seed(0)
    model, settings = load_head(), AvatarSettings(filters=8, latent_size=4)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    save_avatar(Avatar(build_networks(settings, model, identity).eval(), model, identity, settings), path)
    print("made an avatar", file=sys.stderr, flush=True)
    return path
