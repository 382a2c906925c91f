"""Speed of the CPU rasteriser of Gaussians, as a Markdown table: `python -m bench.rasterizer`.

The scene resembles a frame of training: flat Gaussians in the surface of a head-sized ellipsoid that fills four fifths
of the image's height, each as large as the gaps between them, at random positions.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import dataclass

import torch

from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Splats

SEMI_AXES = (0.085, 0.12, 0.1)
"""Of the ellipsoid, in metres: half width, half height, half depth."""


def random_head_splats(images: int, count: int, seed: int = 0) -> Splats:
    """Random splats: `count` Gaussians per image on the ellipsoid, at other positions in each image."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.tensor(SEMI_AXES)
    normals = torch.nn.functional.normalize(torch.randn(images, count, 3, generator=generator), dim=-1)
    spacing = math.sqrt(4 * math.pi * float(axes.prod()) ** (2 / 3) / count)
    stretch = torch.exp(0.3 * torch.randn(images, count, 2, generator=generator))
    scales = torch.cat([0.7 * spacing * stretch, torch.full((images, count, 1), 0.2 * spacing)], -1)
    # The shortest rotation from +Z to the surface normal, as an unnormalised quaternion (w, x, y, z): 1 + the dot
    # product, then the cross product.
    quaternions = torch.stack([1 + normals[..., 2], -normals[..., 1], normals[..., 0], torch.zeros(images, count)], -1)
    opacities = 0.3 + 0.65 * torch.rand(images, count, generator=generator)
    colors = torch.rand(images, count, 3, generator=generator)
    return Splats(normals * axes, quaternions, scales, opacities, colors)


def cameras_for(images: int, size: int) -> Cameras:
    """Cameras one metre in front of the ellipsoid."""
    focal = 0.8 * size / (2 * SEMI_AXES[1])
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    world_to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    world_to_camera[2, 3] = 1.0
    return Cameras(intrinsics.expand(images, 3, 3), world_to_camera.expand(images, 4, 4), size, size)


@dataclass(frozen=True)
class Timing:
    """Milliseconds for a whole batch, each the fastest of several repeats, because other programs only slow it down."""

    forward: float
    backward: float
    processor: float
    """Processor time of both passes, summed over threads. It hardly depends on what other programs run."""


def measure(images: int, count: int, size: int, repeats: int) -> Timing:
    """Time the rasteriser on `images` images of `size` pixels with `count` Gaussians each."""
    splats = Splats(*(tensor.requires_grad_() for tensor in vars(random_head_splats(images, count)).values()))
    cameras = cameras_for(images, size)
    weights = torch.rand(images, size, size, 3)
    rounds = []
    for _ in range(repeats):
        processor_start, start = time.process_time(), time.perf_counter()
        raster = rasterize(splats, cameras, backend="cpu")
        middle = time.perf_counter()
        outputs = (raster.color, raster.alpha, raster.depth)
        torch.autograd.grad(outputs, list(vars(splats).values()), (weights, weights[..., 0], weights[..., 1]))
        rounds.append((middle - start, time.perf_counter() - middle, time.process_time() - processor_start))
    return Timing(*(1000 * min(column) for column in zip(*rounds, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the rasteriser")
    parser.add_argument("--repeats", type=int, default=12, help="repeats per row, of which the fastest counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = f"{options.threads} threads, {platform.machine()}"
    print(f"CPU rasteriser, {machine}; milliseconds, fastest of {options.repeats}\n")
    print("| Gaussians | image | forward | backward | both | both, processor time | both, each of 4 at once |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in (256, 512):
        for count in (5_000, 15_000, 30_000, 60_000):
            one = measure(1, count, size, options.repeats)
            four = measure(4, count, size, options.repeats)
            both, each = one.forward + one.backward, (four.forward + four.backward) / 4
            print(
                f"| {count:,} | {size}² | {one.forward:.1f} | {one.backward:.1f} | {both:.1f} | {one.processor:.1f} "
                f"| {each:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
