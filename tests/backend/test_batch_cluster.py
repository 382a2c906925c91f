"""A batch on a real Dask scheduler with two workers on loopback; and what a cluster's addresses may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask is not installed (requirements/batch.lock)")

from dask_cluster import dask_cluster
from distributed import Client
from small_capture import make_small_capture

ROOT = Path(__file__).resolve().parents[2]


def start_batch(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "backend", "batch", "shots.csv", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds: float = 60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def events_of(client: Client, folder: Path) -> list[dict[str, Any]]:
    """What the stages of the running batch have reported so far."""
    witnesses = list(folder.glob(".batch-*"))
    events = client.get_events(f"effigy-{witnesses[0].name.removeprefix('.batch-')}") if witnesses else ()
    return [event for _, event in events]


def test_the_work_of_a_machine_that_is_lost_in_a_training_is_done_on_another_one(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    make_small_capture(tmp_path, frames=10)
    (tmp_path / "shots.csv").write_text(
        "name,capture,minutes,evaluate\nanna,ball.capture,0.08,no\nben,ball.capture,0.08,no\n"
    )
    out = tmp_path / "shots"
    with dask_cluster(tmp_path, "first", "second") as (url, workers), Client(url) as client:
        batch = start_batch(tmp_path, "--cluster", url)
        wait_until(
            lambda: any(
                event["clip"] == "anna" and event.get("stage") in ("Warming up", "Training")
                for event in events_of(client, out)
            )
        )
        name_of = {address: info["name"] for address, info in client.scheduler_info()["workers"].items()}
        (lost,) = [
            name_of[address]
            for address, keys in client.processing().items()
            if any(key[0] == "effigy-train" and key[2] == "anna" for key in keys)
        ]
        # The worker is one process: this is the loss of a machine, except that its stage ends by itself.
        workers[lost].kill()
        begun = []

        def anna_was_begun_again() -> bool:
            nonlocal begun
            events = events_of(client, out)
            begun = [e["clip"] for e in events if e["batch_stage"] == "train" and not e.keys() & {"stage", "state"}]
            return begun.count("anna") == 2

        wait_until(anna_was_begun_again)
        output, errors = batch.communicate(timeout=120)
    assert batch.returncode == 0, errors
    assert begun.count("ben") == 1
    rows = json.loads((out / "batch.json").read_text())["clips"]
    assert [(row["clip"], row["state"], row["tracked"]) for row in rows] == [("anna", "done", 10), ("ben", "done", 10)]
    assert "anna" in output and "2 clips, 0 of them not done" in output
    assert all((out / name / f"{name}.effigy").is_file() for name in ("anna", "ben"))
