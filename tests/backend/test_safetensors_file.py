"""A loaded avatar or checkpoint keeps no hold on its file, so that it can be replaced on Windows too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from worker_sessions import mapped_by, untrained_avatar

from backend.avatar.avatar import load_avatar
from backend.formats.safetensors_file import read_tensors
from backend.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")


def test_read_tensors_keep_no_mapping_of_their_file(tmp_path: Path) -> None:
    expected = torch.arange(100_000, dtype=torch.float32)
    save_file({"values": expected}, tmp_path / "file", metadata={"effigy": '{"schema": 1}'})
    header, tensors = read_tensors(tmp_path / "file", "avatar", "copy it again", 10**6)
    assert not mapped_by(os.getpid(), tmp_path / "file")
    assert header == {"schema": 1} and torch.equal(tensors["values"], expected)


def test_a_loaded_avatar_keeps_no_mapping_of_its_file(tmp_path: Path) -> None:
    path = untrained_avatar(tmp_path / "ann.effigy")
    avatar = load_avatar(path)
    assert not mapped_by(os.getpid(), path)
    assert avatar.identity.size


def test_a_loaded_checkpoint_keeps_no_mapping_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ann.effigy.checkpoint"
    save_checkpoint(path, Checkpoint({}, "training", 1, 1.0, 1.0, {"weights": torch.randn(300, 300)}))
    loaded = load_checkpoint(path)
    assert not mapped_by(os.getpid(), path)
    assert loaded.tensors["weights"].shape == (300, 300)
