"""Speed of training on this machine, and the time that each part of a step takes.

    python -m bench.training CAPTURE [--size 256] [--steps 20] [--device auto] [--plain]

`--plain` trains without pose refinement and without the enhancer. The capture must be tracked. No file is written.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from backend.avatar.avatar import build_networks
from backend.avatar.enhancer import head_depth
from backend.avatar.settings import AvatarSettings
from backend.devices import choose_device
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.head.registry import find_head
from backend.progress import SILENT
from backend.splatting.rasterize import rasterize
from backend.training.frames import TrainingFrames
from backend.training.losses import anchor_limits, total_loss
from backend.training.optimisation import Optimisation, ParameterGroup
from backend.training.pose_refinement import PoseRefiner
from backend.training.presets import Preset
from backend.training.trainer import parameter_groups

BATCH = Preset(size=0, warmup_steps=0, steps=0).batch


def peak_memory_gigabytes(device: torch.device) -> float:
    """Peak memory of the GPU if training runs there, else of this process; NaN on Windows, which has no such figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    # Linux reports kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)


def stage_times(optimisation: Optimisation, repeats: int) -> dict[str, float]:
    """Milliseconds of each part of a step, run one after the other in one thread; the fastest of `repeats`.

    On a CPU this is processor time, which other programs hardly change.
    """
    clock = time.perf_counter if optimisation.frames.device.type == "cuda" else time.process_time
    rows = torch.arange(BATCH) % len(optimisation.frames)
    parameters = optimisation._parameters
    milliseconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = clock()
        result = work()
        if optimisation.frames.device.type == "cuda":
            torch.cuda.synchronize()
        milliseconds.setdefault(name, []).append(1e3 * (clock() - started))
        return result

    for _ in range(repeats):
        batch = timed("frames and tracked poses", lambda: optimisation.frames.batch(rows, optimisation.size))
        pose, motion, penalty = batch.pose, None, 0.0
        if optimisation.pose_refiner:
            pose, motion, penalty = timed("refinement", lambda: optimisation.pose_refiner.pose(batch, rows, rows))
        splats, anchors = timed("networks", lambda: optimisation.model(pose))
        if motion:
            splats = motion.move(splats)
        raster = timed("rasteriser", lambda: rasterize(splats, batch.cameras))
        enhanced = None
        if optimisation.enhancer:
            enhanced = timed("enhancer", lambda: optimisation.enhancer(raster, head_depth(splats, batch.cameras)))
        background = torch.rand((BATCH, 3), device=batch.color.device)
        loss = timed(
            "losses",
            lambda: total_loss(raster, batch, anchors, optimisation.anchor_limit, background, enhanced=enhanced),
        )
        timed("backward", lambda: torch.autograd.grad(loss + penalty, parameters, allow_unused=True))
    return {name: min(times) for name, times in milliseconds.items()}


def measure(capture_folder: Path, *, size: int, steps: int, device: str, plain: bool) -> str:
    """Train for `steps` steps and return the measured speed, memory and stage times as Markdown tables."""
    capture = load_capture(capture_folder)
    track = load_track(capture.folder / "track.npz")
    model = find_head(track.head_name, track.head_fingerprint, "The track")
    chosen = choose_device(device)
    frames = TrainingFrames(capture, track, model, size, chosen)
    settings = AvatarSettings(size=size, enhancer_width=0 if plain else 16)
    networks = build_networks(settings, model, track.identity).to(chosen)
    pose_refiner = None if plain else PoseRefiner(networks, frames)
    groups = parameter_groups(networks)
    if pose_refiner:
        groups.append(ParameterGroup(pose_refiner.refinement.parameters(), 1e-2))
    optimisation = Optimisation(
        networks,
        groups,
        frames,
        anchor_limits(model, networks.base_scale),
        stage="Measuring",
        steps=steps,
        batch=BATCH,
        size=size,
        final_rate=1.0,
        pose_refiner=pose_refiner,
        enhancer=networks.enhancer,
    )
    warmup = min(3, steps // 2)
    timestamps: list[float] = []
    optimisation.run(SILENT, lambda _: timestamps.append(time.perf_counter()))
    per_step = (timestamps[-1] - timestamps[warmup]) / (len(timestamps) - 1 - warmup)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stages = stage_times(optimisation, 3)
    finally:
        torch.set_num_threads(threads)
    processor = f"{platform.processor() or platform.machine()}, {threads} threads"
    name = torch.cuda.get_device_name() if chosen.type == "cuda" else processor
    lines = [
        f"{size}², {BATCH} frames a step, {'plain' if plain else 'with refinement and enhancer'}, {name}",
        "",
        "| steps/s | frames/s | peak memory, GB |",
        "|---|---|---|",
        f"| {1 / per_step:.2f} | {BATCH / per_step:.1f} | {peak_memory_gigabytes(chosen):.2f} |",
        "",
        "| part of a step | ms in one thread | share |",
        "|---|---|---|",
    ]
    total = sum(stages.values())
    lines += [f"| {stage} | {value:.0f} | {100 * value / total:.0f} % |" for stage, value in stages.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path, help="folder of a tracked capture")
    parser.add_argument("--size", type=int, default=256, help="width and height of the training images in pixels")
    parser.add_argument("--steps", type=int, default=20, help="training steps to time")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--plain", action="store_true", help="train without pose refinement and without the enhancer")
    arguments = parser.parse_args()
    print(
        measure(
            arguments.capture,
            size=arguments.size,
            steps=arguments.steps,
            device=arguments.device,
            plain=arguments.plain,
        )
    )


if __name__ == "__main__":
    main()
