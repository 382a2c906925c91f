"""Time per frame of an avatar: posing, networks, rasterisation and enhancer, the latter two at three image sizes.

    python -m bench.inference [AVATAR TRACK] [--device cpu]

Without arguments, an untrained avatar with the default settings on the open head is measured. It takes the same time
as a trained one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from backend.avatar.avatar import Avatar, build_networks, load_avatar
from backend.avatar.enhancer import enhance
from backend.avatar.settings import AvatarSettings
from backend.devices import choose_device
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras

from .training import peak_memory_gigabytes, synchronize

REPEATS = 20


def median_ms(work: Callable[[], object], device: torch.device) -> float:
    """Median wall-clock milliseconds of REPEATS calls on a device, after three calls that are not counted."""
    for _ in range(3):
        work()
    times = []
    for _ in range(REPEATS):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def posed_frame(arguments: argparse.Namespace) -> tuple[Avatar, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """The avatar; expression (1, E), joint rotations (1, 5, 3) and camera (1, 4, 4) of a frame; and the focal length as
    a multiple of the image's width.
    """
    if arguments.avatar:
        avatar, track = load_avatar(arguments.avatar), load_track(arguments.track)
        expression, rotations = (torch.as_tensor(part[:1]) for part in (track.expression, track.rotations))
        camera = torch.as_tensor(track.head_to_camera[:1])
        return avatar, expression, rotations, camera, float(track.intrinsics[0, 0]) / track.size
    model = load_head()
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    torch.manual_seed(0)
    settings = AvatarSettings(enhancer_width=16)
    avatar = Avatar(build_networks(settings, model, identity).eval(), model, identity, settings)
    camera = torch.diag(torch.tensor([1.0, -1, -1, 1]))[None]
    camera[0, 2, 3] = 0.8
    return avatar, torch.zeros(1, len(model.expression_names)), torch.zeros(1, 5, 3), camera, 2.2


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> str:
    device = choose_device(arguments.device)
    avatar, *inputs, focal = posed_frame(arguments)
    avatar.networks.to(device)
    expression, rotations, camera = (part.to(device) for part in inputs)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    pose = avatar.pose(expression, rotations, camera)
    splats, _ = avatar.networks(pose)
    rows = [
        ("rig to pose", median_ms(lambda: avatar.pose(expression, rotations, camera), device)),
        ("networks", median_ms(lambda: avatar.networks(pose), device)),
    ]
    for size in (256, 512, 1024):
        intrinsics = torch.tensor([[[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]]]).to(device)
        cameras = Cameras(intrinsics, camera, size, size)
        rows.append((f"rasterisation {size}²", median_ms(lambda cameras=cameras: rasterize(splats, cameras), device)))
        if avatar.enhancer is not None:
            raster = rasterize(splats, cameras)
            work = lambda raster=raster, cameras=cameras: enhance(avatar.enhancer, raster, splats, cameras)
            rows.append((f"enhancer {size}²", median_ms(work, device)))
    times = dict(rows)
    drawing = times["rig to pose"] + times["networks"] + times["rasterisation 512²"]
    rows.append(("posing and drawing 512², without enhancer", drawing))
    if avatar.enhancer is not None:
        rows.append(("posing and drawing 512², with enhancer", drawing + times["enhancer 512²"]))
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    lines = [
        f"{avatar.gaussian_count} Gaussians, {sum(p.numel() for p in avatar.networks.parameters()):,} parameters"
        + f", {where}"
        + (f", {avatar.megabytes:.2f} MB" if arguments.avatar else "")
        + f", peak memory {peak_memory_gigabytes(device):.2f} GB",
        "\n| stage | ms |\n|---|--:|",
    ]
    return "\n".join(lines + [f"| {name} | {value:.1f} |" for name, value in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.inference", description=__doc__.splitlines()[0])
    parser.add_argument("avatar", type=Path, nargs="?", help="an .effigy file; by default an untrained avatar")
    parser.add_argument("track", type=Path, nargs="?", help="the track whose first frame is posed")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    if arguments.avatar and not arguments.track:
        parser.error("an avatar needs a track")
    print(measure(arguments))


if __name__ == "__main__":
    main()
