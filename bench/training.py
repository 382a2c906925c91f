"""How fast training runs on this machine, and where a step's time goes.

    python -m bench.training CAPTURE [--size 256] [--steps 20] [--device auto] [--plain]

`--plain` leaves out the track's refinement and the enhancer. The capture must be tracked. Nothing is written.
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
    """Of the GPU where training runs there, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)


def stages_of(optimisation: Optimisation, repeats: int) -> dict[str, float]:
    """Milliseconds of each part of a step, one after the other in one thread; the least of `repeats`. On a CPU it is
    processor time, which other programs do not lengthen.
    """
    clock = time.perf_counter if optimisation.frames.device.type == "cuda" else time.process_time
    rows = torch.arange(BATCH) % len(optimisation.frames)
    parameters = optimisation._parameters
    taken: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = clock()
        result = work()
        if optimisation.frames.device.type == "cuda":
            torch.cuda.synchronize()
        taken.setdefault(name, []).append(1e3 * (clock() - started))
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
    return {name: min(times) for name, times in taken.items()}


def measure(capture_folder: Path, *, size: int, steps: int, device: str, plain: bool) -> str:
    """The tables, as Markdown."""
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
    warm = min(3, steps // 2)
    moments: list[float] = []
    optimisation.run(SILENT, lambda _: moments.append(time.perf_counter()))
    per_step = (moments[-1] - moments[warm]) / (len(moments) - 1 - warm)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stages = stages_of(optimisation, 3)
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
    parser.add_argument("capture", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--plain", action="store_true", help="without refinement and enhancer")
    given = parser.parse_args()
    print(measure(given.capture, size=given.size, steps=given.steps, device=given.device, plain=given.plain))


if __name__ == "__main__":
    main()
