"""Speed of the mesh rasterisers on heads, as a Markdown table: `python -m bench.mesh_rasterizer`.

The open head is seen from several sides and fills four fifths of the image's height: with all of its 10,208 triangles,
and with the half of them that remains if every second one is left out. Milliseconds for a whole batch, the fastest of
several repeats. On a CPU numba draws one image on each thread and Warp's kernels run in one thread, so both are also
timed with one thread. On a GPU every implementation that works there is timed, and numba on the CPU beside them.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import torch

from backend.head.formats import load_head
from backend.splatting.mesh_batch import MeshBackend, rasterize_meshes, why_unavailable

SIZES = (256, 512)
BATCHES = (1, 16)


def heads(images: int, size: int, share: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices (B, V, 3), every `share`-th triangle (F, 3) and intrinsics (3, 3)."""
    model = load_head()
    centred = model.template.astype(np.float64) - (model.template.max(0) + model.template.min(0)) / 2
    angles = np.linspace(-0.8, 0.8, images)
    turns = np.array([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    vertices = centred @ turns.transpose(0, 2, 1) * [1, -1, -1] + [0, 0, 1.0]
    focal = 0.8 * size / np.ptp(centred[:, 1])
    lens = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return torch.as_tensor(vertices), torch.as_tensor(model.faces[::share].astype(np.int32)), torch.as_tensor(lens)


def fastest_ms(backend: MeshBackend, device: str, inputs: tuple[torch.Tensor, ...], size: int, repeats: int) -> float:
    tensors = [tensor.to(device) for tensor in inputs]
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        rasterize_meshes(*tensors, size, size, backend=backend)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    # The first call compiles the kernels.
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mesh_rasterizer", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12, help="repeats per figure, of which the fastest counts")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    columns: list[tuple[str, MeshBackend, str, int]] = [
        (f"numba, {threads} threads", "cpu", "cpu", threads),
        ("numba, 1 thread", "cpu", "cpu", 1),
        ("Warp on the CPU", "warp", "cpu", 1),
        ("PyTorch3D on the CPU", "pytorch3d", "cpu", 1),
    ]
    if torch.cuda.is_available():
        columns += [
            ("Warp on the GPU", "warp", "cuda", threads),
            ("PyTorch3D on the GPU", "pytorch3d", "cuda", threads),
        ]
    missing = {backend: why_unavailable(backend) for _, backend, _, _ in columns}
    columns = [column for column in columns if missing[column[1]] is None]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    print(f"Mesh rasterisers, {platform.machine()}, {threads} threads{gpu}; milliseconds, fastest of {options.repeats}")
    print("In brackets: the time of numba with one thread divided by this time.")
    for reason in sorted({reason for reason in missing.values() if reason}):
        print(f"Not measured: {reason}")
    print("\n| triangles | image | images | " + " | ".join(name for name, *_ in columns) + " |")
    print("|--:|--:|--:|" + "--:|" * len(columns))
    for share in (2, 1):
        for size in SIZES:
            for images in BATCHES:
                inputs = heads(images, size, share)
                times = []
                for _, backend, device, used in columns:
                    torch.set_num_threads(used)
                    times.append(fastest_ms(backend, device, inputs, size, options.repeats))
                torch.set_num_threads(threads)
                base = times[1]
                cells = " | ".join(f"{value:.2f} ({base / value:.2f})" for value in times)
                print(f"| {len(inputs[1]):,} | {size}² | {images} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
