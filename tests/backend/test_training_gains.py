"""What training is for: networks that beat Gaussians which the mesh alone moves, on footage of a person, and an avatar
that goes on from a stopped training and is better than it was.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_capture import make_small_capture
from test_training import StopAfter, held_out_psnr

from backend.avatar.avatar import Avatar, build_networks
from backend.avatar.render import draw
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.errors import Cancelled
from backend.formats.capture import load_capture
from backend.formats.image_files import to_bytes
from backend.formats.track import load_track
from backend.head.registry import find_head
from backend.training.baselines import VertexBoundAvatar, train_baseline
from backend.training.checkpoint import checkpoint_path, load_checkpoint
from backend.training.evaluation import WHITE
from backend.training.frames import read_truth
from backend.training.metrics import compare
from backend.training.presets import Preset
from backend.training.trainer import train

FOOTAGE = "EFFIGY_FOOTAGE"
"""A folder with a tracked capture (`*.capture`) of a person, which no repository may hold."""
SECONDS = 20.0
"""Of processor time for each of the two."""
SIZE = 64
FRAMES = 12


def test_networks_beat_gaussians_that_the_mesh_alone_moves(tmp_path):
    folders = sorted(Path(os.environ.get(FOOTAGE, "")).glob("*.capture")) if os.environ.get(FOOTAGE) else []
    if not folders:
        pytest.skip(f"There is no footage of a person: {FOOTAGE} names no folder with a tracked capture.")
    capture = load_capture(folders[0])
    track = load_track(capture.folder / "track.npz")
    model = find_head(track.head_name, track.head_fingerprint, "The track")
    plan = Preset(size=SIZE, warmup_steps=10_000, steps=10_000, refinement=False)
    equally = {"size": SIZE, "minutes": SECONDS / 60, "clock": time.process_time}
    trained = train(capture.folder, tmp_path / "person.effigy", plan=plan, **equally)
    bound = train_baseline(capture, track, model, **equally)
    good = np.flatnonzero(track.flags == 0)
    held_out = good[good >= capture.training_count]
    chosen = held_out[np.linspace(0, len(held_out) - 1, FRAMES).round().astype(int)]

    def decibels(avatar: Avatar | VertexBoundAvatar) -> float:
        found = []
        for index in chosen.tolist():
            truth, matte = read_truth(capture, index, SIZE)
            image = to_bytes(draw(avatar, track, [index], SIZE)[0].over(WHITE))
            figures = compare(image / np.float32(255), truth / np.float32(255), matte / np.float32(255))
            found.append(figures.psnr_head)
        return float(np.mean(found))

    networks, baseline = decibels(trained), decibels(bound)
    print(f"{capture.folder.name}: networks {networks:.2f} dB in the head, bound to the mesh {baseline:.2f} dB")
    assert networks > baseline


def test_a_resumed_training_beats_what_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    small = make_small_capture(tmp_path)
    capture, track, model = small
    path = tmp_path / "ball.effigy"
    plan = Preset(size=SIZE, warmup_steps=20, steps=120)
    with pytest.raises(Cancelled):
        train(capture.folder, path, plan=plan, progress=StopAfter("Training", 10))
    stopped = load_checkpoint(checkpoint_path(path))
    assert stopped.stage == "training" and 10 <= stopped.step < 20
    settings = AvatarSettings(**GENERATORS["blendshapes"] | {"size": SIZE})
    networks = build_networks(settings, model, track.identity)
    with torch.no_grad():
        for name, parameter in networks.named_parameters():
            parameter.copy_(stopped.tensors[f"average.{name}"])
    start = held_out_psnr(Avatar(networks.eval(), model, track.identity, settings), small)
    end = held_out_psnr(train(capture.folder, path, plan=plan, resume=True), small)
    print(f"stopped {start:.2f} dB, resumed {end:.2f} dB")
    assert end > start + 1
