"""Time per frame of an avatar: posing, networks, rasterisation and enhancer, the latter two at three image sizes.

    python -m bench.inference [AVATAR TRACK]

Without arguments, an untrained avatar with the default settings on the open head is measured. It takes the same time
as a trained one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from backend.avatar.avatar import Avatar, build_networks, load_avatar
from backend.avatar.enhancer import enhance
from backend.avatar.settings import AvatarSettings
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras

REPEATS = 20


def median_ms(work: Callable[[], object]) -> float:
    """Median wall-clock milliseconds of REPEATS calls, after three calls that are not counted."""
    for _ in range(3):
        work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def main(arguments: list[str]) -> None:
    if arguments:
        avatar, track = load_avatar(Path(arguments[0])), load_track(Path(arguments[1]))
        expression, rotations = (torch.as_tensor(part[:1]) for part in (track.expression, track.rotations))
        camera, focal = torch.as_tensor(track.head_to_camera[:1]), float(track.intrinsics[0, 0]) / track.size
    else:
        model = load_head()
        identity = np.zeros(model.shape_basis.shape[2], np.float32)
        torch.manual_seed(0)
        settings = AvatarSettings(enhancer_width=16)
        avatar = Avatar(build_networks(settings, model, identity).eval(), model, identity, settings)
        expression, rotations = torch.zeros(1, len(model.expression_names)), torch.zeros(1, 5, 3)
        camera = torch.diag(torch.tensor([1.0, -1, -1, 1]))[None]
        camera[0, 2, 3], focal = 0.8, 2.2
    with torch.no_grad():
        pose = avatar.pose(expression, rotations, camera)
        splats, _ = avatar.networks(pose)
        rows = [
            ("rig to pose", median_ms(lambda: avatar.pose(expression, rotations, camera))),
            ("networks", median_ms(lambda: avatar.networks(pose))),
        ]
        for size in (256, 512, 1024):
            intrinsics = torch.tensor([[[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]]])
            cameras = Cameras(intrinsics, camera, size, size)
            rows.append((f"rasterisation {size}²", median_ms(lambda cameras=cameras: rasterize(splats, cameras))))
            if avatar.enhancer is not None:
                raster = rasterize(splats, cameras)
                rows.append(
                    (
                        f"enhancer {size}²",
                        median_ms(
                            lambda raster=raster, cameras=cameras: enhance(avatar.enhancer, raster, splats, cameras)
                        ),
                    )
                )
    print(
        f"{avatar.gaussian_count} Gaussians, {sum(p.numel() for p in avatar.networks.parameters()):,} parameters, "
        f"{torch.get_num_threads()} threads" + (f", {avatar.megabytes:.2f} MB" if arguments else "")
    )
    print("\n| stage | ms |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
