"""Speed of training on this machine, and the time that each part of a step takes.

    python -m bench.training CAPTURE [--size 256] [--steps 20] [--device auto] [--plain]
        [--generator blendshapes] [--mixed-precision] [--to-db DB]

`--plain` trains without pose refinement and without the enhancer. `--to-db` also trains an avatar from the start until
the PSNR of its training frames, as progress shows it, reaches a value, and prints the time. The capture must be
tracked; nothing is written into it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from backend.avatar.avatar import build_networks
from backend.avatar.enhancer import head_depth
from backend.avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from backend.devices import choose_device
from backend.errors import Cancelled
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.head.registry import find_head
from backend.progress import SILENT, Progress
from backend.splatting.rasterize import rasterize
from backend.training.frames import TrainingFrames
from backend.training.losses import ANCHOR_LIMIT_WEIGHT, anchor_limits, spawned_limit_loss, total_loss
from backend.training.optimisation import Optimisation, ParameterGroup
from backend.training.parameter_groups import parameter_groups
from backend.training.pose_refinement import PoseRefiner
from backend.training.presets import Preset, find_preset
from backend.training.trainer import train

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


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all queued work, so that a clock can be read. A CPU has no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Goal(Progress):
    """Progress that cancels a training when its PSNR has reached a value, or when time is up."""

    def __init__(self, decibels: float, minutes: float) -> None:
        super().__init__()
        self.decibels, self.minutes = decibels, minutes
        self.started: float | None = None
        self.seconds: float | None = None
        self.psnr = float("nan")

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        if stage not in ("Warm-up", "Training"):
            return
        self.started = self.started or time.perf_counter()
        seconds = time.perf_counter() - self.started
        # The warm-up's images are smaller, and its Gaussians are not yet the avatar.
        if stage == "Training":
            self.psnr = metrics["psnr"]
            if self.psnr >= self.decibels:
                self.seconds = seconds
                raise Cancelled
        if seconds > 60 * self.minutes:
            raise Cancelled


def time_to(
    decibels: float, minutes: float, capture_folder: Path, *, generator: str, size: int, device: str, plain: bool
) -> str:
    """Train an avatar, warm-up included, until its PSNR is `decibels` or time is up; a sentence that says how long."""
    plan = replace(find_preset("draft"), steps=10**6, refinement=not plain, enhancer_width=0 if plain else 16)
    goal = _Goal(decibels, minutes)
    with tempfile.TemporaryDirectory() as folder, suppress(Cancelled):
        path = Path(folder) / "bench.effigy"
        train(capture_folder, path, plan=plan, generator=generator, size=size, device=device, progress=goal)
    if goal.seconds is None:
        return f"Not at {decibels:g} dB after {minutes:g} minutes, warm-up included; last measured: {goal.psnr:.2f} dB"
    return f"Time to {decibels:g} dB on the training frames, warm-up included: {goal.seconds:.0f} s"


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
        synchronize(optimisation.frames.device)
        milliseconds.setdefault(name, []).append(1e3 * (clock() - started))
        return result

    for _ in range(repeats):
        batch = timed("frames and tracked poses", lambda: optimisation.frames.batch(rows, optimisation.size))
        pose, motion, penalty = batch.pose, None, 0.0
        if optimisation.pose_refiner:
            pose, motion, penalty = timed("refinement", lambda: optimisation.pose_refiner.pose(batch, rows, rows))
        spawned, anchors = timed("networks", lambda: optimisation.model(pose))
        splats = motion.move(spawned) if motion else spawned
        raster = timed("rasteriser", lambda: rasterize(splats, batch.cameras))
        enhanced = None
        if optimisation.enhancer:
            enhanced = timed("enhancer", lambda: optimisation.enhancer(raster, head_depth(splats, batch.cameras)))
        background = torch.rand((BATCH, 3), device=batch.color.device)
        limits = optimisation.anchor_limit
        penalty = penalty + ANCHOR_LIMIT_WEIGHT * timed(
            "limits of spawned Gaussians", lambda: spawned_limit_loss(spawned, pose, limits)
        )
        loss = timed("losses", lambda: total_loss(raster, batch, anchors, limits, background, enhanced=enhanced))
        timed("backward", lambda: torch.autograd.grad(loss + penalty, parameters, allow_unused=True))
    return {name: min(times) for name, times in milliseconds.items()}


def measure(
    capture_folder: Path,
    *,
    generator: str,
    size: int,
    steps: int,
    device: str,
    plain: bool,
    mixed_precision: bool = False,
) -> str:
    """Train for `steps` steps and return the measured speed, memory and stage times as Markdown tables."""
    capture = load_capture(capture_folder)
    track = load_track(capture.folder / "track.npz")
    model = find_head(track.head_name, track.head_fingerprint, "The track")
    chosen = choose_device(device)
    frames = TrainingFrames(capture, track, model, size, chosen)
    settings = AvatarSettings(size=size, enhancer_width=0 if plain else 16, **GENERATORS[generator])
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
        mixed_precision=mixed_precision,
    )
    if chosen.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    warmup = min(3, steps // 2)
    timestamps: list[float] = []

    def after_step(_: Optimisation) -> None:
        # Between the two ends of the measurement nothing waits for the GPU, as in training.
        if optimisation.step - 1 in (warmup, steps - 1):
            synchronize(chosen)
        timestamps.append(time.perf_counter())

    optimisation.run(SILENT, after_step)
    per_step = (timestamps[-1] - timestamps[warmup]) / (len(timestamps) - 1 - warmup)
    peak = peak_memory_gigabytes(chosen)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stages = stage_times(optimisation, 3)
    finally:
        torch.set_num_threads(threads)
    processor = f"{platform.processor() or platform.machine()}, {threads} threads"
    name = torch.cuda.get_device_name() if chosen.type == "cuda" else processor
    lines = [
        f"{generator}, {size}², {BATCH} frames a step, {'plain' if plain else 'with refinement and enhancer'}, {name}"
        + (", mixed precision" if mixed_precision else ""),
        "",
        "| steps/s | frames/s | peak memory, GB |",
        "|---|---|---|",
        f"| {1 / per_step:.2f} | {BATCH / per_step:.1f} | {peak:.2f} |",
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
    parser.add_argument("--generator", choices=tuple(GENERATORS), default=DEFAULT_GENERATOR)
    parser.add_argument("--mixed-precision", action="store_true", help="bfloat16 in the convolutions; first table only")
    parser.add_argument("--to-db", type=float, help="also measure the time until the training frames' PSNR is this, dB")
    parser.add_argument("--minutes", type=float, default=10.0, help="give up --to-db after this time")
    arguments = parser.parse_args()
    print(
        measure(
            arguments.capture,
            generator=arguments.generator,
            size=arguments.size,
            steps=arguments.steps,
            device=arguments.device,
            plain=arguments.plain,
            mixed_precision=arguments.mixed_precision,
        )
    )
    if arguments.to_db:
        options = {name: getattr(arguments, name) for name in ("generator", "size", "device", "plain")}
        print(time_to(arguments.to_db, arguments.minutes, arguments.capture, **options))


if __name__ == "__main__":
    main()
