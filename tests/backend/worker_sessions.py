"""A worker process with a data folder of its own, and a client connected to it as in Blender."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from backend.avatar.avatar import Avatar, build_networks, save_avatar
from backend.avatar.settings import AvatarSettings
from backend.head.formats import load_head
from backend.head.model import HeadModel
from blender_addon.worker.client import WorkerClient

ROOT = Path(__file__).resolve().parents[2]


def make_client(user: Path, **options: object) -> WorkerClient:
    environment = os.environ | {"EFFIGY_USER": str(user)}
    return WorkerClient([sys.executable, "-m", "backend", "serve"], str(ROOT), environment, **options)


def untrained_avatar(path: Path, model: HeadModel | None = None, seed: int = 0) -> Path:
    """A file of untrained, small networks with the usual number of Gaussians."""
    torch.manual_seed(seed)
    model = model or load_head()
    settings = AvatarSettings(filters=8, latent_size=4)
    identity = np.random.default_rng(seed).normal(0, 0.5, model.shape_basis.shape[2]).astype(np.float32)
    networks = build_networks(settings, model, identity)
    with torch.no_grad():
        for parameter in networks.parameters():
            # Untrained networks are neutral, and Gaussians that nothing moves would test nothing.
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_avatar(Avatar(networks.eval(), model, identity, settings), path)
    return path


def until(condition: Callable[[], object], client: WorkerClient | None = None, seconds: float = 60.0) -> float:
    """Wait until the condition holds, pumping the client; returns the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "the condition did not become true"
        if client:
            client.pump()
        time.sleep(0.01)
    return time.monotonic() - started


def mapped_by(pid: int, path: Path) -> bool:
    """Whether a process has this file mapped into its memory; Windows does not replace such a file."""
    return str(path) in Path(f"/proc/{pid}/maps").read_text()


def runs(pid: int) -> bool:
    """Whether this process is running; a zombie counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(folder.name))
    return found
