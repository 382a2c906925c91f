"""Speed of the rasterisers of Gaussians, as Markdown tables.

    python -m bench.rasterizer [--backend cpu|warp|cuda] [--device cpu|cuda]    time per image
    python -m bench.rasterizer --compile       Warp's kernels, compiled for several GPUs; none of them has to be here

The scene resembles a frame of training: flat Gaussians in the surface of a head-sized ellipsoid that fills four fifths
of the image's height, each as large as the gaps between them, at random positions.
"""

from __future__ import annotations

import argparse
import math
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.splatting.rasterize import Backend, rasterize
from backend.splatting.types import Cameras, Splats

SEMI_AXES = (0.085, 0.12, 0.1)
"""Of the ellipsoid, in metres: half width, half height, half depth."""
ARCHITECTURES = {75: "GTX 16, RTX 20", 86: "RTX 30", 89: "RTX 40", 120: "RTX 50"}
"""Compute capabilities for which `--compile` compiles, times ten, and GeForce cards that have them."""


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


def measure(images: int, count: int, size: int, repeats: int, backend: Backend = "cpu", device: str = "cpu") -> Timing:
    """Time a rasteriser on `images` images of `size` pixels with `count` Gaussians each."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    splats = Splats(
        *(tensor.to(device).requires_grad_() for tensor in vars(random_head_splats(images, count)).values())
    )
    cameras = cameras_for(images, size)
    cameras = Cameras(cameras.intrinsics.to(device), cameras.world_to_camera.to(device), size, size)
    weights = torch.rand(images, size, size, 3, device=device)
    rounds = []
    for _ in range(repeats):
        wait()
        processor_start, start = time.process_time(), time.perf_counter()
        raster = rasterize(splats, cameras, backend=backend)
        wait()
        middle = time.perf_counter()
        outputs = (raster.color, raster.alpha, raster.depth)
        torch.autograd.grad(outputs, list(vars(splats).values()), (weights, weights[..., 0], weights[..., 1]))
        wait()
        rounds.append((middle - start, time.perf_counter() - middle, time.process_time() - processor_start))
    return Timing(*(1000 * min(column) for column in zip(*rounds, strict=True)))


def print_compilation() -> None:
    """Compile Warp's kernels for each of `ARCHITECTURES`: seconds of processor time, and sizes of the machine code."""
    import warp

    from backend.splatting import warp_blend, warp_project

    warp.init()
    print(f"Warp {warp.__version__}, its own compiler (CUDA {'.'.join(map(str, warp.get_cuda_toolkit_version()))})\n")
    print("| compute capability | cards | projection | blending | together |")
    print("|--:|---|--:|--:|--:|")
    for architecture, cards in ARCHITECTURES.items():
        cells, seconds, bytes_ = [], 0.0, 0
        for module in (warp_project, warp_blend):
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                [made] = warp.compile_aot_module(
                    module, device=None, arch=architecture, module_dir=folder, use_ptx=False
                )
                took, size = time.process_time() - start, Path(made).stat().st_size
            cells.append(f"{took:.2f} s, {size / 1e3:.0f} kB")
            seconds, bytes_ = seconds + took, bytes_ + size
        capability = f"{architecture // 10}.{architecture % 10}"
        print(f"| {capability} | {cards} | {' | '.join(cells)} | {seconds:.2f} s, {bytes_ / 1e3:.0f} kB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the rasteriser")
    parser.add_argument("--repeats", type=int, default=12, help="repeats per row, of which the fastest counts")
    parser.add_argument("--backend", choices=("cpu", "warp", "cuda"), default="cpu", help="numba, Warp or gsplat")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the splats lie")
    parser.add_argument("--compile", action="store_true", help="compile Warp's kernels for GPUs instead of drawing")
    options = parser.parse_args()
    if options.compile:
        print_compilation()
        return
    torch.set_num_threads(options.threads)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"Rasteriser {options.backend}, {options.threads} threads, {machine}; ms, fastest of {options.repeats}\n")
    print("| Gaussians | image | forward | backward | both | both, processor time | both, each of 4 at once |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in (256, 512):
        for count in (5_000, 15_000, 30_000, 60_000):
            one = measure(1, count, size, options.repeats, options.backend, options.device)
            four = measure(4, count, size, options.repeats, options.backend, options.device)
            both, each = one.forward + one.backward, (four.forward + four.backward) / 4
            print(
                f"| {count:,} | {size}² | {one.forward:.1f} | {one.backward:.1f} | {both:.1f} | {one.processor:.1f} "
                f"| {each:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
