"""Warp as a part of the product: silent, cached in the user's folder, optional, compiled for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRAW = """
import torch
from backend.splatting.self_test import small_scene
from backend.splatting.rasterize import rasterize
splats, cameras = small_scene(torch.device("cpu"))
print(float(rasterize(splats, cameras, backend="warp").alpha.max()) > 0.1)
"""


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_drawing_prints_nothing_on_stdout_and_keeps_its_kernels_where_the_user_says(tmp_path) -> None:
    """The worker speaks JSON on stdout, so that a greeting or a note about compilation would break it."""
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    completed = run(DRAW, WARP_CACHE_PATH=str(tmp_path / "kernels"))
    assert completed.stdout == "True\n", completed.stdout + completed.stderr
    compiled = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*.o")]
    assert len(compiled) == 2, "one file of machine code for the projection, one for the blending"
    assert all(parts[:2] == ("kernels", "warp") for parts in compiled)


def test_without_warp_the_user_gets_a_sentence() -> None:
    program = "import sys; sys.modules['warp'] = None\n" + DRAW
    completed = run(program)
    assert completed.returncode == 1 and "True" not in completed.stdout
    assert completed.stderr.splitlines()[-1].startswith(
        "backend.errors.EffigyError: Drawing with NVIDIA Warp needs the package warp-lang: install the backend again"
    )
