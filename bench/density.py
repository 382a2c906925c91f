"""Density by need: what it gains to move Gaussians that no frame needs to where the error is, to let hair leave the
mesh more freely and the face less, or to spread the spawned Gaussians of hair.

    python -m bench.density CAPTURE [CAPTURE ...] --out DIR [--only NAME ...] [--steps 700] [--size 128]
        [--frames N] [--warm-up N] [--seeds 20251 ...]

For each capture and seed there is one warm-up, from which every variant is trained for the same number of steps with
the same draws, in one thread. The table has the processor seconds of each. DIR receives `rows.json`, from which a
stopped command goes on, and a picture of two held-out frames: footage, then each variant.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Final

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch

from backend.avatar.avatar import Avatar, build_networks
from backend.avatar.graph_avatar import GraphAvatar
from backend.avatar.render import draw
from backend.avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from backend.formats.capture import load_capture
from backend.formats.image_files import to_bytes, write_png
from backend.head.model import HeadModel
from backend.head.mouth import mouth_parts
from backend.head.registry import find_head
from backend.progress import SILENT
from backend.storage import write_beside
from backend.training.filmed_limits import hold_mouth, store_materials, store_training_ranges, store_weight_limits
from backend.training.frames import WHITE, TrainingFrames, evenly_spaced, read_truth
from backend.training.losses import HAIR_OFFSET_LIMIT, anchor_limits
from backend.training.optimisation import SEED, Optimisation, Part
from backend.training.parameter_groups import parameter_groups
from backend.training.presets import Preset, find_preset
from backend.training.session import TrainingSession
from backend.training.stages import CONDITION_NOISE, distillation_poses, train_free_gaussians
from backend.training.tracked_captures import load_training_track
from backend.training.unobserved_regions import UnobservedPrior
from backend.training.vertex_visibility import find_unobserved
from backend.training.warmup import distil_into_networks
from bench.density_moves import UNUSED, Moves, Regularisers, Use, use_of
from bench.generators import score, with_spread


@dataclass(frozen=True)
class Variant:
    moves_at: tuple[float, ...] = ()
    """Fractions of the training at which Gaussians are moved."""
    moved: float = 0.25
    """Share of the spawned Gaussians that are moved each time, at most."""
    revived_at: tuple[float, ...] = ()
    """Fractions at which Gaussians that no frame needs are put back to their own anchors."""
    face: float = 1.0
    """Factor on the penalty of anchors beyond their limits, where those are the face's."""
    hair: float = 1.0
    """The same of scalp, ears and neck."""
    spread: float = 1.0
    """Factor on the first distances of the spawned Gaussians of scalp, ears and neck from their anchors."""


DRAFT: Final = find_preset("draft")
VARIANTS: Final = {
    "as it is": Variant(),
    "moved": Variant(moves_at=(0.0, 0.15, 0.3)),
    "revived": Variant(revived_at=(0.15, 0.3)),
    "weights": Variant(face=10.0, hair=0.1),
    "spread": Variant(spread=2.0),
}
COLUMNS: Final = {"seconds": 1, "psnr": 2, "psnr_head": 2, "psnr_inner": 2, "ssim": 3, "training": 2, "unused": 2}
"""Columns of the table, and their decimals; "unused" is the share of the spawned Gaussians that no frame needs."""


class Comparison:
    """The variants on one capture with one seed, after one warm-up."""

    def __init__(self, folder: Path, seed: int, steps: int, size: int, plan: Preset = DRAFT) -> None:
        self.seed, self.steps, self.size = seed, steps, size
        self.capture, self.plan = load_capture(folder), plan
        self.track = load_training_track(self.capture, False)
        self.model: HeadModel = find_head(self.track.head_name, self.track.head_fingerprint, f"The track of {folder}")
        self.settings = replace(AvatarSettings(**GENERATORS[DEFAULT_GENERATOR]), size=size)
        torch.manual_seed(seed)
        self.frames = TrainingFrames(self.capture, self.track, self.model, size, "cpu", SILENT, most=plan.frames)
        networks = build_networks(self.settings, self.model, self.track.identity)
        store_training_ranges(networks, self.frames)
        hold_mouth(networks, self.model)
        self.limits = anchor_limits(self.model, networks.base_scale)
        unobserved = find_unobserved(self.frames, self.model, self.limits)
        self.limits = unobserved.closing(self.limits, networks.base_scale)
        free = train_free_gaussians(
            self.frames,
            self.track.identity,
            self.model,
            self.settings.sh_degree,
            self.plan,
            TrainingSession(None, {}, SILENT, None),
            None,
            seed=seed,
        )
        self.pose = distillation_poses(self.frames)
        unobserved.extrapolate_into(free, self.pose, self.limits)
        with torch.no_grad():
            self.prior = UnobservedPrior(unobserved.weight, free(self.pose)[1])
        distil_into_networks(free, networks, self.pose)
        self.start = networks.state_dict()

    def start_networks(self, variant: Variant) -> GraphAvatar:
        """The networks after the warm-up."""
        networks = build_networks(self.settings, self.model, self.track.identity)
        networks.load_state_dict(self.start)
        assert networks.blendshapes is not None
        with torch.no_grad():
            networks.blendshapes.positions[self.limits.offset >= HAIR_OFFSET_LIMIT] *= variant.spread
        return networks

    def optimisation(self, networks: GraphAvatar, variant: Variant) -> tuple[Optimisation, Regularisers]:
        """The training of the networks."""
        k = self.settings.neural_per_anchor
        prior = Regularisers(self.prior, self.limits, k, variant.face, variant.hair)
        optimisation = Optimisation(
            networks,
            parameter_groups(networks),
            self.frames,
            self.limits,
            stage="Training",
            steps=self.steps,
            batch=self.plan.batch,
            size=self.size,
            final_rate=0.05,
            condition_noise=CONDITION_NOISE,
            unobserved_prior=prior,
            seed=self.seed,
        )
        return optimisation, prior

    def train(self, variant: Variant) -> tuple[Avatar, dict[str, Any]]:
        """The avatar, and its row of the table."""
        networks = self.start_networks(variant)
        started = time.process_time()
        optimisation, prior = self.optimisation(networks, variant)
        moves = Moves(networks, optimisation, prior, self.seed) if variant.moves_at + variant.revived_at else None
        for at in sorted({*variant.moves_at, *variant.revived_at}):
            optimisation.run(SILENT, None, Part("Training", end=at))
            assert moves
            if at in variant.moves_at:
                moves.move(self.frames, self.size, variant.moved)
            if at in variant.revived_at:
                moves.revive(self.frames, self.size)
        optimisation.run(SILENT)
        optimisation.use_average()
        seconds = time.process_time() - started
        use = use_of(networks, self.frames, self.size)
        store_weight_limits(networks, self.model, self.frames)
        store_materials(networks, self.model, self.pose)
        figures = {"steps": optimisation.step}
        avatar = Avatar(networks.eval(), self.model, self.track.identity, self.settings, figures)
        row = score(avatar, self.capture) | {"seconds": seconds}
        if moves:
            row |= {"moved": int(moves.moved.sum())}
        return avatar, row | self._by_region(use)

    def _by_region(self, use: Use) -> dict[str, float]:
        """Shares of the error that the Gaussians of regions show, and of the spawned ones that no frame needs."""
        count = len(self.model.template)
        vertices = {
            "hair": np.flatnonzero((self.limits.offset >= HAIR_OFFSET_LIMIT).numpy()),
            "mouth": np.concatenate([*mouth_parts(self.model).values()]),
        }
        spawned = use.most[count:].unflatten(0, (count, -1)) < UNUSED
        error = use.error[:count] + use.error[count:].unflatten(0, (count, -1)).sum(1)
        shares = {f"error, {name}": float(error[part].sum() / error.sum()) for name, part in vertices.items()}
        unused = {f"unused, {name}": float(spawned[part].float().mean()) for name, part in vertices.items()}
        return shares | {"unused": float(spawned.float().mean())} | unused

    def picture(self, avatars: list[Avatar]) -> np.ndarray:
        """(H, W, 3) uint8: a row for each of two held-out frames, footage first."""
        good = np.flatnonzero(self.track.flags == 0)
        shown = evenly_spaced(good[good >= self.capture.training_count], 4)[1:3].tolist()
        rows = []
        for index in shown:
            images = [draw(each, self.track, [index], self.size)[0].over(WHITE) for each in avatars]
            rows.append(np.concatenate([read_truth(self.capture, index, self.size)[0], *map(to_bytes, images)], 1))
        return np.concatenate(rows)


def table_of(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each clip and variant, the mean over its seeds with half their spread; then the mean over
    clips and seeds of each variant's difference from the first, with the smallest and the largest.
    """
    lines = [f"| clip | variant | {' | '.join(COLUMNS)} |", "|---|---|" + "--:|" * len(COLUMNS)]
    for clip, name in dict.fromkeys((row["clip"], row["variant"]) for row in rows):
        values = [row for row in rows if (row["clip"], row["variant"]) == (clip, name)]
        cells = []
        for column, digits in COLUMNS.items():
            found = [row[column] for row in values]
            cells.append(with_spread(found, digits))
        lines.append(f"| {clip} | {name} | {' | '.join(cells)} |")
    first, *others = dict.fromkeys(row["variant"] for row in rows)
    plain = {(row["clip"], row["seed"]): row for row in rows if row["variant"] == first}
    for name in others:
        own = {(row["clip"], row["seed"]): row for row in rows if row["variant"] == name}
        pairs = [(own[key], plain[key]) for key in own.keys() & plain.keys()]
        if pairs:
            cells = []
            for column, digits in COLUMNS.items():
                gains = [row[column] - base[column] for row, base in pairs]
                low, high = min(gains), max(gains)
                cells.append(f"{mean(gains):+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})")
            lines.append(f"| {len(pairs)} pairs | {name} − {first} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.density", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path, help="folders of tracked captures")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows.json and the pictures")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--size", type=int, default=128, help="width and height of the training images in pixels")
    parser.add_argument("--frames", type=int, default=DRAFT.frames, help="training frames at most, evenly spaced")
    parser.add_argument("--warm-up", type=int, default=DRAFT.warmup_steps, help="steps of the warm-up")
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = replace(DRAFT, frames=arguments.frames, warmup_steps=arguments.warm_up)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else []
    for seed in arguments.seeds:
        for folder in arguments.captures:
            key = {"clip": folder.stem, "seed": seed, "size": arguments.size, "asked": arguments.steps}
            key |= {"frames": arguments.frames, "warm-up": arguments.warm_up}
            known = [row["variant"] for row in rows if key.items() <= row.items()]
            missing = [name for name in arguments.only if name not in known]
            if not missing:
                continue
            comparison, avatars = Comparison(folder, seed, arguments.steps, arguments.size, plan), []
            for name in missing:
                avatar, row = comparison.train(VARIANTS[name])
                avatars.append(avatar)
                rows.append(key | {"variant": name} | row)
                with write_beside(file) as temporary:
                    temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(json.dumps(rows[-1]), flush=True)
            write_png(arguments.out / f"{folder.stem}-{seed}.png", comparison.picture(avatars))
    print(table_of(rows))


if __name__ == "__main__":
    main()
