"""The check that decides whether an installation works: an avatar is trained for two steps and drawn on a device.

Everything is real but small: a capture on disk, the bundled head, `train` with warm-up, and a picture of the avatar
that is compared with the reference rasteriser's. It needs neither footage nor a network.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.render import track_cameras
from ..avatar.settings import AvatarSettings
from ..devices import usable_cuda
from ..errors import EffigyError
from ..formats.capture import Capture, save_capture
from ..formats.track import Track, save_track
from ..head.formats import load_head
from ..splatting.rasterize import rasterize
from ..splatting.reference import rasterize_reference
from ..splatting.self_test import MAX_IMAGE_ERROR
from ..splatting.types import Cameras, Splats
from ..training.presets import Preset
from ..training.trainer import train

FRAMES: Final = 10
SIZE: Final = 64
"""Width and height of the frames, pixels: the smallest that training takes."""
SETTINGS: Final = AvatarSettings(filters=2, latent_size=4, chebyshev_order=3, neural_per_anchor=1, feature_size=2)
PLAN: Final = Preset(size=SIZE, warmup_steps=1, steps=2, batch=2, refinement=False)
COMPARED_GAUSSIANS: Final = 400
"""How many of the avatar's Gaussians are compared with the reference, which evaluates each of them at every pixel."""


def check_device(device: str) -> str:
    """Train and draw on `device` (auto, cpu or cuda); returns a sentence that names the device and why it was chosen.

    Raises an `EffigyError` if training or drawing fails, if the picture is wrong, or if "cuda" was asked for and the
    training went on on the CPU.
    """
    with tempfile.TemporaryDirectory(prefix="effigy-check-") as folder:
        capture, track = _write_capture(Path(folder))
        avatar = train(
            capture.folder, Path(folder) / "check.effigy", size=SIZE, device=device, plan=PLAN, settings=SETTINGS
        )
    trained_on = str(avatar.metrics["device"])
    if device == "cuda" and not trained_on.startswith("cuda"):
        raise EffigyError(f"{usable_cuda().reason}")
    error = _image_error(avatar, track)
    if not error <= MAX_IMAGE_ERROR:
        raise EffigyError(
            f"The rasteriser draws a wrong picture on the device {trained_on}: it differs from the reference by "
            f"{error:.2g}. Install the backend again, or choose the device cpu."
        )
    explanation = f" {usable_cuda().reason}" if device == "auto" or trained_on != "cpu" else ""
    return f"An avatar was trained for {PLAN.steps} steps and drawn on the device {trained_on}.{explanation}"


def _write_capture(folder: Path) -> tuple[Capture, Track]:
    """A capture of noise in a disc, with the bundled head at rest in front of the camera in every frame."""
    model = load_head()
    cameras = np.tile(np.diag([1.0, -1, -1, 1]).astype(np.float32), (FRAMES, 1, 1))
    cameras[:, 2, 3] = 1.0
    intrinsics = np.array([[3.0 * SIZE, 0, SIZE / 2], [0, 3.0 * SIZE, SIZE / 2], [0, 0, 1]], np.float32)
    track = Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(model.shape_basis.shape[2], np.float32),
        expression=np.zeros((FRAMES, model.expression_basis.shape[2]), np.float32),
        rotations=np.zeros((FRAMES, 5, 3), np.float32),
        head_to_camera=cameras,
        intrinsics=intrinsics,
        size=SIZE,
        fps=Fraction(25),
        residual=np.ones(FRAMES, np.float32),
        flags=np.zeros(FRAMES, np.int32),
        training_count=FRAMES,
    )
    capture = Capture(
        folder=folder / "check.capture",
        source_name="check",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=intrinsics.astype(np.float64),
        frame_numbers=np.arange(FRAMES),
        frame_times=np.arange(FRAMES) / 25.0,
        landmarks=np.full((FRAMES, 478, 3), np.nan, np.float32),
        scores=np.zeros((FRAMES, 52), np.float32),
        detector_pose=np.full((FRAMES, 4, 4), np.nan, np.float32),
        flags=np.zeros(FRAMES, np.int32),
        frame_suffix=".png",
    )
    for name in ("frames", "mattes", "head_mattes"):
        (capture.folder / name).mkdir(parents=True)
    save_capture(capture)
    save_track(track, capture.folder / "track.npz")
    random = np.random.default_rng(0)
    across = np.hypot(*(np.indices((SIZE, SIZE)) + 0.5 - SIZE / 2))
    matte = (255 * (across < SIZE / 3)).astype(np.uint8)
    for frame in range(FRAMES):
        image = random.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        for path, pixels in (
            (capture.frame_path(frame), image),
            (capture.matte_path(frame), matte),
            (capture.head_matte_path(frame), matte),
        ):
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return capture, track


@torch.inference_mode()
def _image_error(avatar: Avatar, track: Track) -> float:
    """Largest difference of a colour or an alpha value between a picture of the avatar and the reference's."""
    splats = avatar.splats(track, [0])
    stride = max(1, splats.means.shape[1] // COMPARED_GAUSSIANS)
    splats = Splats(*(tensor[:, ::stride].contiguous() for tensor in vars(splats).values()))
    # Larger and more opaque than trained, so that so few Gaussians overlap.
    splats = replace(splats, scales=4 * splats.scales, opacities=splats.opacities.clamp_min(0.5))
    cameras = track_cameras(track, [0], SIZE, avatar.device)
    drawn = rasterize(splats, cameras)
    on_cpu = Splats(*(tensor.double().cpu() for tensor in vars(splats).values()))
    truth = rasterize_reference(
        on_cpu,
        Cameras(cameras.intrinsics.double().cpu(), cameras.world_to_camera.double().cpu(), SIZE, SIZE),
    )
    if not float(truth.alpha.max()) > 0.5:
        raise EffigyError("The avatar of the device check is not in the picture: install the backend again.")
    return max(
        float((drawn.color.cpu() - truth.color).abs().max()), float((drawn.alpha.cpu() - truth.alpha).abs().max())
    )
