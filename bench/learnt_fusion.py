"""Colours of the first Gaussians: recurrent gates that are learnt on rendered people, against the closed-form mean.

    python -m bench.learnt_fusion [CAPTURE ...] --out DIR [--people 5] [--tests 2] [--steps 300] [--frames 1 2 4 ...]

InvertAvatar fuses what single frames show, one frame after another, by gates that it learnt on many people. Here a
small recurrent network does so in each vertex, from how straight a frame sees it, its matte, how much was seen before
and how far the colour lies from the one so far. It corrects the gain of a running mean, and is trained on rendered
people (`known_person`) whose tracks are disturbed, so that fused colours are near to what other frames show in true
poses. It is compared with `training.projection.fused_colors` and with a mean by straightness and matte alone: on
further rendered people by the colours' error, and on captures by held-out frames before any training.
DIR keeps the observations of the rendered people and the gates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from backend.avatar.anchors import mean_edge_lengths
from backend.formats.capture import load_capture
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.forward import vertex_normals
from backend.head.model import NECK
from backend.head.registry import find_head
from backend.splatting.mesh_batch import rasterize_meshes
from backend.splatting.rasterize import rasterize
from backend.training.frames import TrackPoses, TrainingFrames, evenly_spaced, read_cutout
from backend.training.losses import anchor_limits
from backend.training.projection import KNOWN_WEIGHT, SIZE, Fusion, Observations, fused_colors, observe, project_into
from backend.training.tracked_captures import load_training_track
from backend.training.warmup import VertexBoundGaussians

from .known_person import Scene

COUNTS: Final = (1, 2, 4, 8, 16, 32, 64)
TARGETS: Final = 6
"""Frames of a rendered person that no fusion sees."""
TURN, MOVE, FACE = 0.8, 0.0015, 0.05
"""Standard deviations of the disturbance of each frame's track: degrees, metres, and units of expression."""
YAW: Final = 40.0
STATE: Final = 12
"""Numbers that the gates remember of a vertex."""
INPUTS: Final = 9
LONGEST: Final = 16
"""Frames of a person in one step of the gates' training; a gate that is trained so is used on more."""
VERTICES: Final = 1024
"""Of a person in one step."""
HELD_OUT: Final = 12
"""Held-out frames of a capture that are scored."""
COVERED: Final = 0.95
"""Of a pixel, by Gaussians and matte, if it is compared."""


class Gates(nn.Module):
    """A recurrent network that fuses the observations of frames, one after another, in each vertex by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(INPUTS, STATE)
        self.out = nn.Linear(STATE, 1)
        # It starts as the running mean by straightness and matte.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def fused(self, seen: Observations) -> list[Tensor]:
        """The colours (N, 3) after each frame."""
        weights = seen.straight * seen.mattes.square()
        state = weights.new_zeros(weights.shape[1], STATE)
        color, total, results = torch.full_like(seen.colors[0], 0.5), torch.zeros_like(weights[0]), []
        for count, (observed, matte, weight) in enumerate(zip(seen.colors, seen.mattes, weights, strict=True)):
            difference = observed - color
            share = weight / (total + weight).clamp_min(1e-6)
            features = (
                seen.straight[count],
                matte,
                share,
                torch.log1p(total),
                torch.full_like(total, np.log1p(count)),
                difference.norm(dim=-1),
            )
            asked = torch.cat((torch.stack(features, -1), difference), -1)
            state = torch.where(weight[:, None] > 0, self.cell(asked, state), state)
            gain = torch.sigmoid(torch.logit(share, 1e-4) + self.out(state)[:, 0])
            # The first frame that shows a vertex is all that is known of it.
            gain = torch.where(total > 0, gain, torch.ones_like(gain)) * (weight > 0)
            color = color + gain[:, None] * difference
            total = total + weight
            results.append(color)
        return results

    @torch.no_grad()
    def forward(self, seen: Observations) -> Tensor:
        return self.fused(seen)[-1]


def straight_mean(seen: Observations) -> Tensor:
    """(N, 3): the mean by straightness and matte alone."""
    weights = (seen.straight * seen.mattes.square())[..., None]
    return (weights * seen.colors).sum(0) / weights.sum(0).clamp_min(1e-6)


def rendered_person(seed: int, frames: int) -> tuple[Observations, Observations]:
    """What `frames` frames show in disturbed poses, and what TARGETS others show in true ones."""
    model = load_head()
    scene = Scene(model, seed, frames + TARGETS, YAW, still=True, oversampling=1)
    truth, size = scene.truth, SIZE
    faces = torch.as_tensor(model.faces.astype(np.int64))
    every = np.arange(frames + TARGETS)
    exact, disturbed = TrackPoses(truth, model), TrackPoses(_disturbed(truth, seed), model)
    normals = vertex_normals(exact.shaped.vertices, faces)[0]
    cameras = exact.cameras(every, 2 * size)
    view = cameras.world_to_camera
    points = exact.pose(every).posed @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
    covered = rasterize_meshes(points, faces, cameras.intrinsics, 2 * size, 2 * size).covered.float()
    mattes = torch.nn.functional.avg_pool2d(covered, 2)
    small = [cv2.resize(scene.image(index), (size, size), interpolation=cv2.INTER_AREA) for index in every.tolist()]
    images = torch.cat((torch.from_numpy(np.stack(small)).float() / 255, mattes[..., None]), -1)

    def seen(poses: TrackPoses, indices: np.ndarray) -> Observations:
        return observe(
            poses.pose(indices),
            torch.zeros_like(normals),
            normals,
            poses.cameras(indices, size),
            images[torch.from_numpy(indices)],
            faces,
        )

    return seen(disturbed, every[:frames]), seen(exact, every[frames:])


def _disturbed(truth: Track, seed: int) -> Track:
    random = np.random.default_rng(seed + 1000)
    rotations, cameras = truth.rotations.copy(), truth.head_to_camera.copy()
    rotations[:, NECK] += np.radians(random.normal(0, TURN, (len(rotations), 3))).astype(np.float32)
    cameras[:, :3, 3] += random.normal(0, MOVE, (len(cameras), 3)).astype(np.float32)
    noise = FACE * random.normal(size=truth.expression.shape) * (truth.expression > 0)
    return replace(
        truth,
        rotations=rotations,
        head_to_camera=cameras,
        expression=(truth.expression + noise).clip(0, 1).astype(np.float32),
    )


def kept_person(out: Path, seed: int, frames: int) -> tuple[Observations, Observations]:
    """`rendered_person`, from DIR if it is there."""
    file = out / f"person-{seed}-{frames}.npz"
    if not file.is_file():
        seen, targets = rendered_person(seed, frames)
        parts = {f"seen_{name}": value.numpy() for name, value in vars(seen).items()}
        np.savez(file, **parts, **{f"targets_{name}": value.numpy() for name, value in vars(targets).items()})
    with np.load(file) as stored:
        kept = {name: torch.from_numpy(stored[name]) for name in stored.files}
    names = ("colors", "mattes", "straight")
    seen, targets = (Observations(**{name: kept[f"{part}_{name}"] for name in names}) for part in ("seen", "targets"))
    return seen, targets


def error(color: Tensor, targets: Observations, known: Tensor) -> Tensor:
    """(): mean squared difference between colours (N, 3) and what the targets show, where it is known (N,)."""
    weights = targets.straight * targets.mattes.square() * known
    return (weights * (targets.colors - color).square().mean(-1)).sum() / weights.sum().clamp_min(1e-6)


def known(seen: Observations) -> Tensor:
    return (seen.straight * seen.mattes.square()).sum(0) > KNOWN_WEIGHT


def some(seen: Observations, frames: Tensor, vertices: Tensor | slice = slice(None)) -> Observations:
    return Observations(*(part[frames][:, vertices] for part in vars(seen).values()))


def learn(people: Sequence[tuple[Observations, Observations]], steps: int, seed: int = 0) -> Gates:
    """Gates that were trained on these people, with every length up to LONGEST."""
    torch.manual_seed(seed)
    gates = Gates()
    optimizer = torch.optim.Adam(gates.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        seen, targets = people[step % len(people)]
        count, total = seen.straight.shape
        vertices = torch.randperm(total)[:VERTICES]
        shown = some(seen, torch.randperm(count)[:LONGEST], vertices)
        target = some(targets, torch.arange(TARGETS), vertices)
        prefixes = (shown.straight * shown.mattes.square()).cumsum(0) > KNOWN_WEIGHT
        # In proportion to the error of the mean, so that the few first frames do not count for everything.
        loss = torch.stack(
            [
                error(color, target, prefix).clamp_min(1e-6).log()
                for color, prefix in zip(gates.fused(shown), prefixes, strict=True)
            ]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return gates


def compared_on_people(
    fusions: dict[str, Fusion], people: Sequence[tuple[Observations, Observations]], counts: Sequence[int]
) -> dict[str, list[list[float]]]:
    """Per fusion and count of frames, the colours' PSNR in dB for each person."""
    table: dict[str, list[list[float]]] = {name: [] for name in fusions}
    for count in counts:
        shown = [
            (some(seen, torch.from_numpy(evenly_spaced(np.arange(len(seen.straight)), count))), targets)
            for seen, targets in people
        ]
        for name, fusion in fusions.items():
            table[name].append(
                [-10 * float(error(fusion(seen), targets, known(seen)).log10()) for seen, targets in shown]
            )
    return table


def compared_on_capture(
    fusions: dict[str, Fusion], folder: Path, counts: Sequence[int], size: int = SIZE
) -> dict[str, list[float]]:
    """Per fusion and count of frames, the PSNR of held-out frames before any training, dB: over the pixels inside the
    matte that the Gaussians cover, since hair off the mesh, which they do not reach yet, is no matter of colours.
    """
    capture = load_capture(folder)
    track = load_training_track(capture, False)
    model = find_head(track.head_name, track.head_fingerprint, f"The track of {capture.source_name}")
    frames = TrainingFrames(capture, track, model, size, fewest=1, most=max(counts))
    lengths = torch.from_numpy(mean_edge_lengths(model.template + model.shape_basis @ track.identity, model.faces))
    good = np.flatnonzero(track.flags == 0)
    held_out = evenly_spaced(good[good >= capture.training_count], HELD_OUT)
    cutouts = [read_cutout(capture, index, size) / np.float32(255) for index in held_out.tolist()]
    table: dict[str, list[float]] = {name: [] for name in fusions}
    for count in counts:
        for name, fusion in fusions.items():
            free = VertexBoundGaussians(lengths, 1)
            project_into(free, frames, model, anchor_limits(model, free.base_scale), most=count, fusion=fusion)
            figures = []
            for index, truth in zip(held_out.tolist(), cutouts, strict=True):
                chosen = np.array([index])
                with torch.no_grad():
                    raster = rasterize(free(frames.poses.pose(chosen))[0], frames.poses.cameras(chosen, size))
                color, alpha = raster.color[0].numpy(), raster.alpha[0].numpy()
                both = (alpha > COVERED) & (truth[..., 3] > COVERED)
                squared = np.square(color[both] / alpha[both, None] - truth[both, :3])
                figures.append(-10 * float(np.log10(squared.mean())))
            table[name].append(mean(figures))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.learnt_fusion", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="*", type=Path, help="folders of tracked captures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rendered people and the gates")
    parser.add_argument("--people", type=int, default=5, help="rendered people to learn from")
    parser.add_argument("--tests", type=int, default=2, help="other rendered people")
    parser.add_argument("--steps", type=int, default=300, help="of the gates' training")
    parser.add_argument("--frames", nargs="+", type=int, default=[*COUNTS])
    arguments = parser.parse_args()
    counts = arguments.frames
    arguments.out.mkdir(parents=True, exist_ok=True)
    people = [kept_person(arguments.out, seed, LONGEST) for seed in range(arguments.people)]
    others = [kept_person(arguments.out, 500 + seed, max(counts)) for seed in range(arguments.tests)]
    started = time.process_time()
    gates = learn(people, arguments.steps)
    torch.save(gates.state_dict(), arguments.out / "gates.pt")
    print(f"{time.process_time() - started:.0f} s of processor time to learn the gates\n")
    fusions: dict[str, Callable[[Observations], Tensor]] = {
        "mean": straight_mean,
        "closed form": fused_colors,
        "learnt gates": gates,
    }
    print(f"| shown | fusion | {' | '.join(map(str, counts))} |\n|---|---|{'--:|' * len(counts)}")
    for name, rows in compared_on_people(fusions, others, counts).items():
        cells = [f"{mean(row):.2f} ± {(max(row) - min(row)) / 2:.2f}" for row in rows]
        print(f"| rendered people | {name} | {' | '.join(cells)} |", flush=True)
    for folder in arguments.captures:
        for name, figures in compared_on_capture(fusions, folder, counts).items():
            cells = [f"{figure:.2f}" for figure in figures]
            print(f"| {folder.stem} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
