"""Generators of other papers against blendshapes, at equal processor time: NPGA's dynamics, free shapes, latents alone.

    python -m bench.peers CAPTURE [CAPTURE ...] [--only NAME ...] [--minutes 1.25 | --steps N] [--size 128]
        [--smoothness S] [--rate R] [--width W] [--cycle]

Every generator is trained by the plan of `draft` with the losses, warm-up and clock of `bench.generators`, and scored
as there; the blendshapes too, so that all have the same day and machine. Megabytes are those of the networks in
half precision. `--cycle` does something else: on the rig's own motion, whose inverse NPGA's backward field is, a
backward field is learnt and distilled into a forward one by cycle consistency, and the errors of both are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from backend.avatar.avatar import HALF_PRECISION_FROM, Avatar, build_networks
from backend.avatar.graph_avatar import GraphAvatar
from backend.avatar.posing import Pose
from backend.avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from backend.formats.capture import Capture, load_capture
from backend.formats.track import Track
from backend.head.registry import find_head
from backend.progress import SILENT
from backend.training.filmed_limits import hold_mouth, store_materials, store_training_ranges, store_weight_limits
from backend.training.frames import TrackPoses, TrainingFrames
from backend.training.losses import AnchorLimits, anchor_limits
from backend.training.optimisation import SEED, Optimisation
from backend.training.parameter_groups import parameter_groups
from backend.training.presets import PRESETS, WARMUP_SHARE, Preset
from backend.training.session import TrainingSession
from backend.training.stages import CONDITION_NOISE, distillation_poses, train_free_gaussians
from backend.training.tracked_captures import load_training_track
from backend.training.unobserved_regions import UnobservedPrior
from backend.training.vertex_visibility import find_unobserved
from backend.training.warmup import VertexBoundGaussians, distil_into_networks

from .generators import EVERY, score, table_of
from .peer_generators import FreeShapes, LatentsAlone, NeuralDynamics, Peer, SmoothPrior

NAMES: Final = ("blendshapes", "npga", "free shapes", "latents alone")
FREE_SHAPES: Final = 16
"""Of which a file has 7 MB."""
CYCLE_STEPS, CYCLE_FRAMES, CYCLE_POINTS = 1500, 8, 256
"""Of the fields of `cycle`: steps of each, and frames and points in a step."""


@dataclass(frozen=True)
class Options:
    minutes: float | None = 1.25
    """Processor time of a training, warm-up included."""
    steps: int | None = None
    """In place of the minutes, also for the warm-up."""
    size: int = 128
    smoothness: float = 0.01
    """Weight of the peers' roughness beside the training loss."""
    rate: float = 2e-3
    """Learning rate of NPGA's network."""
    width: int = 64
    """Hidden units of NPGA's network."""
    seed: int = SEED


@dataclass(frozen=True)
class Start:
    """What the generators of one capture share: its frames, and the free Gaussians of one warm-up."""

    capture: Capture
    track: Track
    frames: TrainingFrames
    free: VertexBoundGaussians
    limits: AnchorLimits
    prior: UnobservedPrior
    pose: Pose
    """The poses in which the networks start from the free Gaussians."""
    session: TrainingSession
    plan: Preset
    minutes: float | None
    """For the generator: those of the warm-up are taken off."""


def prepared(folder: Path, options: Options) -> Start:
    torch.manual_seed(options.seed)
    capture = load_capture(folder)
    track = load_training_track(capture, False)
    model = find_head(track.head_name, track.head_fingerprint, f"The track of {capture.source_name}")
    plan, minutes = PRESETS["draft"], options.minutes
    if options.steps:
        plan, minutes = replace(plan, warmup_steps=options.steps, steps=options.steps), None
    frames = TrainingFrames(capture, track, model, options.size)
    session = TrainingSession(None, {}, SILENT, None)
    free = train_free_gaussians(
        frames,
        track.identity,
        model,
        AvatarSettings().sh_degree,
        plan,
        session,
        None if minutes is None else WARMUP_SHARE * minutes,
        seed=options.seed,
        clock=_clock,
    )
    pose = distillation_poses(frames)
    limits = anchor_limits(model, free.base_scale)
    unobserved = find_unobserved(frames, model, limits)
    limits = unobserved.closing(limits, free.base_scale)
    unobserved.extrapolate_into(free, pose, limits)
    with torch.no_grad():
        prior = UnobservedPrior(unobserved.weight, free(pose)[1])
    minutes = None if minutes is None else (1 - WARMUP_SHARE) * minutes
    return Start(capture, track, frames, free, limits, prior, pose, session, plan, minutes)


def train_peer(name: str, start: Start, options: Options) -> Avatar:
    """An avatar of one of NAMES, trained as `backend.training.stages.train_on` does it."""
    torch.manual_seed(options.seed)
    frames, identity, model = start.frames, start.track.identity, start.frames.poses.head_model
    settings = AvatarSettings(size=options.size, **GENERATORS[DEFAULT_GENERATOR])
    networks = build_networks(settings, model, identity)
    peer = _put_into(networks, name, frames, options)
    store_training_ranges(networks, frames)
    hold_mouth(networks, model)
    distil_into_networks(start.free, networks, start.pose)
    prior = start.prior
    if peer:
        prior = SmoothPrior(**vars(prior), roughness=peer.roughness, smoothness=options.smoothness)
    optimisation = Optimisation(
        networks,
        peer.groups() if peer else parameter_groups(networks),
        frames,
        start.limits,
        stage="Training",
        steps=start.plan.steps,
        batch=start.plan.batch,
        size=options.size,
        final_rate=0.05,
        condition_noise=CONDITION_NOISE,
        unobserved_prior=prior,
        seed=options.seed,
        clock=_clock,
        minutes=start.minutes,
    )
    start.session.run(optimisation, "training")
    optimisation.use_average()
    store_weight_limits(networks, model, frames)
    store_materials(networks, model, start.pose)
    metrics = {"steps": optimisation.step}
    return Avatar(networks.eval(), model, identity, settings, metrics, _megabytes(networks))


def _clock() -> float:
    return time.process_time() / torch.get_num_threads()


def _put_into(networks: GraphAvatar, name: str, frames: TrainingFrames, options: Options) -> Peer | None:
    """Replace the networks' blendshapes, unless it is they that are asked for."""
    if name == "blendshapes":
        return None
    if name == "npga":
        rest = frames.poses.shaped.vertices[0]
        normals = frames.poses.pose(np.array([0])).normals[0]
        peer: Peer = NeuralDynamics(networks, rest, normals, options.width, options.rate)
    else:
        peer = FreeShapes(networks, FREE_SHAPES) if name == "free shapes" else LatentsAlone(networks)
    networks.blendshapes = peer
    return peer


def _megabytes(networks: GraphAvatar) -> float:
    """Of the tensors in the types that a file has."""
    counts = [value.numel() for value in networks.state_dict().values()]
    return sum(count * (2 if count >= HALF_PRECISION_FROM else 4) for count in counts) / 1e6


class Field(nn.Module):
    """Points (B, P, 3) and conditions (B, C) -> the same points moved, as NPGA's F and B."""

    def __init__(self, conditions: int, width: int = 64) -> None:
        super().__init__()
        self.from_points = nn.Linear(27, width)
        self.from_conditions = nn.Linear(conditions, width, bias=False)
        last = nn.Linear(width, 3)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)

    def forward(self, points: Tensor, conditions: Tensor) -> Tensor:
        scaled = points / 0.15
        angles = torch.cat([scaled * (np.pi * 2.0**band) for band in range(4)], -1)
        inputs = torch.cat((scaled, angles.sin(), angles.cos()), -1)
        return points + 0.01 * self.rest(self.from_points(inputs) + self.from_conditions(conditions)[:, None])


@torch.no_grad()
def _moved(poses: TrackPoses, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Vertices (F, N, 3) that expression, jaw and eyes move, and the conditions (F, C)."""
    parts = [poses.pose(part) for part in np.array_split(indices, max(1, len(indices) // 32))]
    return torch.cat([part.canonical for part in parts]), torch.cat([part.conditions for part in parts])


def cycle(folder: Path, steps: int = CYCLE_STEPS, seed: int = SEED) -> dict[str, float]:
    """Millimetres, root mean square over the vertices of held-out frames.

    `moved`: how far expression, jaw and eyes move them on the rig. `backward`: the error of a backward field that saw
    the rig's pairs of posed and resting points. `cycle`: what remains of ||B(F(x)) - x||, by which alone the forward
    field was learnt. `forward`: its error against the rig. `seconds` of processor time for both.
    """
    torch.manual_seed(seed)
    capture = load_capture(folder)
    track = load_training_track(capture, False)
    model = find_head(track.head_name, track.head_fingerprint, f"The track of {capture.source_name}")
    good = np.flatnonzero(track.flags == 0)
    poses = TrackPoses(track, model)
    rest = poses.shaped.vertices[0]
    posed, conditions = _moved(poses, good[good < capture.training_count])
    backward, forward = (Field(conditions.shape[1]) for _ in range(2))
    started = time.process_time()

    def learn(field: Field, error: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        optimizer = torch.optim.Adam(field.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows, points = torch.randint(len(posed), (CYCLE_FRAMES,)), torch.randint(len(rest), (CYCLE_POINTS,))
            start = rest[points].expand(CYCLE_FRAMES, -1, -1)
            loss = 1e6 * error(start, posed[rows][:, points], conditions[rows]).square().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    learn(backward, lambda start, there, asked: backward(there, asked) - start)
    backward.requires_grad_(False)
    learn(forward, lambda start, there, asked: backward(forward(start, asked), asked) - start)
    seconds = time.process_time() - started
    posed, conditions = _moved(poses, good[good >= capture.training_count][::EVERY])
    with torch.no_grad():
        start = rest.expand_as(posed)
        there = forward(start, conditions)
        errors = {
            "moved": posed - start,
            "backward": backward(posed, conditions) - start,
            "cycle": backward(there, conditions) - start,
            "forward": there - posed,
        }
    return {name: 1e3 * float(error.square().sum(-1).mean().sqrt()) for name, error in errors.items()} | {
        "seconds": seconds
    }


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path, help="folders of tracked captures")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[*NAMES], help="of the generators")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="processor time of each training")
    parser.add_argument("--steps", type=int, help="in place of the minutes")
    parser.add_argument("--size", type=int, default=defaults.size, help="width and height of the images in pixels")
    parser.add_argument(
        "--smoothness", type=float, default=defaults.smoothness, help="weight of the Laplacian's energy"
    )
    parser.add_argument("--rate", type=float, default=defaults.rate, help="learning rate of NPGA's network")
    parser.add_argument("--width", type=int, default=defaults.width, help="hidden units of NPGA's network")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cycle", action="store_true", help="distil the rig's motion instead of training avatars")
    arguments = parser.parse_args()
    options = Options(**{name: getattr(arguments, name) for name in vars(defaults)})
    for folder in arguments.captures:
        if arguments.cycle:
            figures = cycle(folder, arguments.steps or CYCLE_STEPS, arguments.seed)
            print(folder.stem, ", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
            continue
        start = prepared(folder, options)
        for name in arguments.only:
            row = {"clip": folder.stem, "name": name} | score(train_peer(name, start, options), start.capture)
            print(table_of([row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
