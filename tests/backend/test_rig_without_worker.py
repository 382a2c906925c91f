"""The extension reads the open head as the worker describes it."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import pytest

from backend.head.formats import load_head
from backend.service.parameters import Parameters
from backend.service.rig_data import head_rig
from blender_addon.errors import EffigyError
from blender_addon.rig import open_head
from blender_addon.rig.data import RigData


def test_a_rig_without_a_worker_is_made_of_the_same_numbers():
    assert load_head().fingerprint == open_head.FINGERPRINT
    identity = np.random.default_rng(0).normal(0, 1, 150).astype(np.float32)
    found = open_head.open_head_data(identity)
    worker = vars(head_rig(Parameters({"identity": identity}, "head.rig")))
    expected = RigData.from_answer(worker | {"head": asdict(worker["head"])})
    for name in (field.name for field in fields(RigData)):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=name, strict=True)
        elif isinstance(ours, dict):
            assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
        else:
            assert ours == theirs


def test_a_damaged_person_or_head_gets_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(EffigyError, match="by 3 numbers instead of the open head's 150"):
        open_head.open_head_data(np.zeros(3, np.float32))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04cut")
    for name in ("cut.npz", "missing.npz"):
        monkeypatch.setattr(open_head, "_FILE", tmp_path / name)
        with pytest.raises(EffigyError, match="install Effigy again"):
            open_head.open_head_data(np.zeros(150, np.float32))
