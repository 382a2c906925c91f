"""Warp as a part of the product: silent, cached in the user's folder, optional, compiled for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_capture import make_small_capture

from backend.avatar.avatar import load_avatar
from backend.avatar.render import track_cameras
from backend.avatar.settings import AvatarSettings
from backend.formats.track import load_track
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Splats
from backend.training import optimisation
from backend.training.presets import Preset
from backend.training.trainer import train

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


BELOW_AN_UMLAUT = """
import sys
from pathlib import Path
from backend.splatting import short_paths

def windows_short_name(path):
    short = Path(sys.argv[1]) / f"SHORT~{len(list(Path(sys.argv[1]).iterdir()))}"
    short.symlink_to(path)
    return str(short)

short_paths.short_path = windows_short_name
from backend.splatting import warp_setup
"""
PRINTS_PATHS = """
wp, build = warp_setup.wp, warp_setup.build
opened = []
compiles = build.build_cpu
build.build_cpu = lambda *given, **options: (opened.extend([build.warp_home, *given[:2]]), compiles(*given, **options))
"""
PRINTS_WHAT_WAS_OPENED = "print(sorted({'SHORT~' in path and path.isascii() for path in opened}))"


def test_below_a_user_name_with_an_umlaut_warp_gets_paths_that_it_can_open(tmp_path) -> None:
    """On Windows, C's `fopen` and NVRTC cannot open such paths; here short names are imitated by links."""
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    (tmp_path / "short").mkdir()
    program = BELOW_AN_UMLAUT + PRINTS_PATHS + DRAW + PRINTS_WHAT_WAS_OPENED
    program = program.replace("sys.argv[1]", repr(str(tmp_path / "short")))
    completed = run(program, WARP_CACHE_PATH=str(tmp_path / "Jürgen"))
    assert completed.stdout == "True\n[True]\n", completed.stdout + completed.stderr


def test_without_warp_the_user_gets_a_sentence() -> None:
    program = "import sys; sys.modules['warp'] = None\n" + DRAW
    completed = run(program)
    assert completed.returncode == 1 and "True" not in completed.stdout
    assert completed.stderr.splitlines()[-1].startswith(
        "backend.errors.EffigyError: Drawing with NVIDIA Warp needs the package warp-lang: install the backend again"
    )


def test_a_trained_avatar_is_drawn_as_by_numba(one_thread) -> None:
    """14,000 Gaussians of an avatar that was trained on footage, with the gradients of a picture of it."""
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    files = ROOT / "tests" / "files_of_0_1"
    track = load_track(files / "bundled_head_track.npz")
    with torch.no_grad():
        splats = load_avatar(files / "bundled_head.effigy").splats(track, [3, 9])
    assert splats.means.shape[1] > 10_000
    cameras = track_cameras(track, [3, 9], 128)
    weight = torch.rand(2, 128, 128, generator=torch.Generator().manual_seed(1))
    images, gradients = {}, {}
    for backend in ("cpu", "warp"):
        leaves = Splats(*(tensor.clone().requires_grad_() for tensor in vars(splats).values()))
        raster = rasterize(leaves, cameras, backend=backend)
        loss = (raster.color.sum(-1) * weight + raster.alpha * weight.flip(1) + raster.depth * weight.flip(2)).sum()
        gradients[backend] = torch.autograd.grad(loss, list(vars(leaves).values()))
        images[backend] = vars(raster)
    assert images["cpu"]["alpha"].max() > 0.9
    for name, image in images["warp"].items():
        torch.testing.assert_close(image, images["cpu"][name], atol=1e-4, rtol=0, msg=name)
    for name, ours, numbas in zip(vars(splats), gradients["warp"], gradients["cpu"]):
        assert (ours - numbas).norm() < 1e-3 * numbas.norm(), name


def test_a_training_drawn_by_warp_has_the_losses_of_one_drawn_by_numba(tmp_path, monkeypatch, one_thread) -> None:
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=16)
    settings = AvatarSettings(filters=2, latent_size=4, chebyshev_order=3, neural_per_anchor=1, feature_size=2)
    total_loss = optimisation.total_loss

    def losses_of(draw: Callable) -> list[float]:
        losses: list[float] = []

        def recorded(*arguments: object) -> torch.Tensor:
            loss = total_loss(*arguments)
            losses.append(float(loss.detach()))
            return loss

        monkeypatch.setattr(optimisation, "rasterize", draw)
        monkeypatch.setattr(optimisation, "total_loss", recorded)
        plan = Preset(size=64, warmup_steps=10, steps=15, batch=2)
        train(capture.folder, tmp_path / "ball.effigy", size=64, plan=plan, settings=settings, device="cpu")
        return losses

    by_numba = losses_of(rasterize)
    by_warp = losses_of(lambda splats, cameras: rasterize(splats, cameras, backend="warp"))
    assert len(by_numba) == 25 and min(by_numba[10:]) < 0.9 * by_numba[0], "the training must learn something"
    # Adam turns rounding errors of gradients near zero into steps, so that the curves part slowly.
    assert by_warp[:15] == pytest.approx(by_numba[:15], rel=1e-3)
    assert by_warp == pytest.approx(by_numba, rel=1e-2)


@pytest.mark.parametrize("architecture", [75, 120])
def test_the_kernels_compile_for_gpus_that_are_not_here(architecture, tmp_path) -> None:
    """Turing, the oldest generation that Warp supports, and Blackwell. Warp's wheel contains the compiler."""
    wp = pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    from backend.splatting import warp_blend, warp_project

    if architecture not in wp.get_cuda_supported_archs():
        pytest.skip("this build of Warp has no compiler for GPUs (macOS)")

    def compiled(module: object, ptx: bool) -> bytes:
        options = {"device": None, "arch": architecture, "module_dir": tmp_path, "use_ptx": ptx}
        [made] = wp.compile_aot_module(module, **options)
        return made.read_bytes()

    # Machine code of a GPU is an ELF file.
    assert compiled(warp_project, False)[:4] == b"\x7fELF"
    text = compiled(warp_blend, True)
    assert b"blend_backward" in text and b"find_tiles" in text
    assert b"shfl.sync.bfly" in text, "the threads of a group add up their parts in registers"
