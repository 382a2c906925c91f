"""Fixtures shared by all layers: where real footage and real FLAME topology lie, if they lie here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As `backend/__init__.py` does for the product, here before any test has imported PyTorch: on a busy machine of two
# cores, a test of many small steps took 20 times as long, because idle threads spun.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED = Path(os.environ.get("EFFIGY_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_footage() -> Path:
    """The folder with the real clips; the test is skipped, and says so, where they are not."""
    folder = SHARED / "footage"
    if not folder.is_dir():
        pytest.skip("real footage is not here (../shared/footage)")
    return folder


@pytest.fixture(scope="session")
def shared_flame() -> Path:
    """The npz of the real FLAME 2023 Open topology."""
    path = SHARED / "flame" / "flame2023_open_identity60.npz"
    if not path.is_file():
        pytest.skip("real FLAME topology is not here (../shared/flame)")
    return path
