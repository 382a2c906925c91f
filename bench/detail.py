"""Ways to train detail at equal processor time: image sizes, patches at full resolution, the enhancer and the losses.

    python -m bench.detail CAPTURE [CAPTURE ...] --out DIR [--minutes 1.5] [--size 512] [--frames 96]
        [--seeds 20251 ...] [--only NAME ...] [--costs]

All variants of a clip and a seed start from one warm-up. Minutes are processor time divided by the number of threads,
without that warm-up. Scores are taken at `--size` whatever was trained on, on evenly spaced held-out frames, as
tracked. Finished rows are kept in DIR/rows.json. `--costs` trains nothing and prints the processor time of a step of
each variant.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from backend.avatar.avatar import Avatar, build_networks
from backend.avatar.enhancer import Enhancer
from backend.avatar.graph_avatar import GraphAvatar
from backend.avatar.render import frames_of, track_cameras
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.formats.capture import Capture, load_capture
from backend.formats.image_files import to_bytes, write_png
from backend.formats.track import Track, load_track
from backend.head.registry import find_head
from backend.progress import SILENT
from backend.storage import write_beside
from backend.training.filmed_limits import hold_mouth, store_training_ranges, store_weight_limits
from backend.training.frames import TrainingFrames, evenly_spaced, read_truth
from backend.training.losses import AnchorLimits, anchor_limits
from backend.training.metrics import compare
from backend.training.optimisation import SEED, Optimisation, Part
from backend.training.parameter_groups import ParameterGroup, groups_beside_avatar, parameter_groups
from backend.training.perceptual import hed_features
from backend.training.pose_refinement import PoseRefiner
from backend.training.presets import Preset
from backend.training.session import TrainingSession
from backend.training.stages import CONDITION_NOISE, distillation_poses, median_pixels_per_metre, train_free_gaussians
from backend.training.unobserved_regions import UnobservedPrior, UnobservedVertices
from backend.training.vertex_visibility import find_unobserved
from backend.training.warmup import distil_into_networks

from .detail_variants import VARIANTS, Variant
from .doubling import drawn, train_doubling
from .generators import with_spread
from .patches import PatchedFrames

WHITE: Final = (1.0, 1.0, 1.0)
SCORED: Final = 16
"""Held-out frames."""
PERCEPTUAL_SCORED: Final = 4
"""Held-out frames on which `vgg_hed` is measured: in one thread it takes two seconds an image of 512 x 512."""
COSTED: Final = 2
WARMUP_STEPS: Final = 200
WARMUP_SIZE: Final = 128
ENHANCER_WIDTH: Final = 16
COLUMNS: Final = {
    "steps": "steps",
    "psnr": "held-out PSNR",
    "psnr_head": "in the head",
    "psnr_inner": "inner",
    "ssim": "SSIM",
    "vgg_hed": "vgg_hed",
    "sd": "SD",
    "milliseconds": "ms to draw",
}


class Clip:
    """A capture, its training frames and the networks after the warm-up."""

    def __init__(self, folder: Path, size: int, seed: int, most: int) -> None:
        self.capture: Capture = load_capture(folder)
        self.track: Track = load_track(folder / "track.npz")
        self.model = find_head(self.track.head_name, self.track.head_fingerprint, "The track")
        self.size, self.seed = size, seed
        self.frames = TrainingFrames(self.capture, self.track, self.model, size, most=most)
        self._mains: dict[tuple[Variant, float], tuple[GraphAvatar, int]] = {}
        torch.manual_seed(seed)
        self.settings = AvatarSettings(size=size, enhancer_width=ENHANCER_WIDTH, **GENERATORS["blendshapes"])
        self.start = build_networks(self.settings, self.model, self.track.identity)
        store_training_ranges(self.start, self.frames)
        hold_mouth(self.start, self.model)
        assert self.start.enhancer is not None
        self.new_enhancer = copy.deepcopy(self.start.enhancer)
        self.limits: AnchorLimits = anchor_limits(self.model, self.start.base_scale)
        unobserved = find_unobserved(self.frames, self.model, self.limits)
        self.limits = unobserved.closing(self.limits, self.start.base_scale)
        self._warm_up(unobserved)
        self.new_enhancer.density.copy_(median_pixels_per_metre(self.start, self.frames))
        good = np.flatnonzero(self.track.flags == 0)
        self.held_out = evenly_spaced(good[good >= self.capture.training_count], SCORED)
        self.perceptual = set(evenly_spaced(self.held_out, PERCEPTUAL_SCORED).tolist())
        self.truths = {index: read_truth(self.capture, index, size) for index in self.held_out.tolist()}
        self.features = {
            index: hed_features()(torch.from_numpy(self.truths[index][0] / np.float32(255))[None])
            for index in self.perceptual
        }

    def _warm_up(self, unobserved: UnobservedVertices) -> None:
        plan = Preset(size=self.size, warmup_steps=WARMUP_STEPS, steps=0)
        free = train_free_gaussians(
            self.frames,
            self.track.identity,
            self.model,
            self.settings.sh_degree,
            plan,
            TrainingSession(None, {}, SILENT, None),
            None,
            size=WARMUP_SIZE,
            seed=self.seed,
        )
        pose = distillation_poses(self.frames)
        unobserved.extrapolate_into(free, pose, self.limits)
        with torch.no_grad():
            self.prior = UnobservedPrior(unobserved.weight, free(pose)[1])
        distil_into_networks(free, self.start, pose)
        assert self.start.enhancer is not None
        small = copy.copy(self.frames)
        small.size //= 2
        self.start.enhancer.density.copy_(median_pixels_per_metre(self.start, small))

    def half_frames(self) -> TrainingFrames:
        """The frames at half the size, without reading them again."""
        frames = copy.copy(self.frames)
        frames.size = self.size // 2
        images = self.frames._images
        frames._images = torch.stack(
            [
                functional.avg_pool2d(image.permute(2, 0, 1)[None].float(), 2)[0].permute(1, 2, 0).round().byte()
                for image in images
            ]
        )
        return frames

    def train(self, variant: Variant, minutes: float) -> tuple[GraphAvatar, Enhancer | None, int]:
        """The networks, the enhancer and the number of steps."""
        main = replace(variant, title="", enhancer_share=0.0, enhancer_crop=0, doubling=False)
        key = (main, (1 - variant.enhancer_share) * minutes)
        if key not in self._mains:
            self._mains[key] = self._train_main(variant, minutes)
        networks, steps = self._mains[key]
        networks = self._copied(networks)
        enhancer = networks.enhancer
        if variant.enhancer_share:
            networks.requires_grad_(False)
        minutes *= variant.enhancer_share
        if variant.doubling:
            return networks, train_doubling(networks, self.frames, ENHANCER_WIDTH, minutes, self.seed), steps
        if variant.enhancer_share:
            networks.enhancer = enhancer = copy.deepcopy(self.new_enhancer)
            last = self._optimisation(
                networks,
                [ParameterGroup([part for part in enhancer.parameters() if part.requires_grad], 2e-3)],
                minutes,
                frames=PatchedFrames(self.frames, 1, self.seed),
                size=self.size // 2,
                perceptual_crop=variant.enhancer_crop,
                enhancer=enhancer,
            )
            last.run(SILENT)
            last.use_average()
            print(f"{last.step} steps of the enhancer", flush=True)
        return networks, enhancer, steps

    def _copied(self, networks: GraphAvatar) -> GraphAvatar:
        copied = build_networks(self.settings, self.model, self.track.identity)
        copied.load_state_dict(networks.state_dict(), strict=False)
        if networks.enhancer is None:
            copied.enhancer = None
        return copied

    def _train_main(self, variant: Variant, minutes: float) -> tuple[GraphAvatar, int]:
        """The Gaussians alone, or with the enhancer that is trained from the first step on, and the steps."""
        networks = self._copied(self.start)
        if not variant.enhancer_first:
            networks.enhancer = None
        optimisation = self._main_optimisation(networks, variant, (1 - variant.enhancer_share) * minutes)
        if variant.perceptual_from:
            crop, optimisation.perceptual_crop = optimisation.perceptual_crop, 0
            optimisation.run(SILENT, None, Part("Training", end=variant.perceptual_from))
            optimisation.perceptual_crop = crop
        if variant.fine_from:
            fine = optimisation.frames, optimisation.size
            optimisation.frames, optimisation.size = self.half_frames(), self.size // 2
            optimisation.run(SILENT, None, Part("Training", end=variant.fine_from))
            optimisation.frames, optimisation.size = fine
        optimisation.run(SILENT)
        optimisation.use_average()
        store_weight_limits(networks, self.model, self.frames)
        return networks, optimisation.step

    def milliseconds_of(self, variant: Variant) -> float:
        """Processor time of a step, the fastest of COSTED pairs; every second step of some variants shows patches."""
        networks = self._copied(self.start)
        if not variant.enhancer_first:
            networks.enhancer = None
        optimisation = self._main_optimisation(networks, variant, 1.0)
        times = []
        for _ in range(COSTED + 1):
            started = time.process_time()
            optimisation._step()
            optimisation._step()
            times.append((time.process_time() - started) / 2)
        return 1e3 * min(times[1:])

    def _main_optimisation(self, networks: GraphAvatar, variant: Variant, minutes: float) -> Optimisation:
        frames = self.half_frames() if variant.scale == 2 else self.frames
        refiner = PoseRefiner(networks, frames) if variant.refinement else None
        if variant.patch_every:
            frames = PatchedFrames(frames, variant.patch_every, self.seed)
        return self._optimisation(
            networks,
            [*parameter_groups(networks), *groups_beside_avatar(refiner, None)],
            minutes,
            frames=frames,
            size=self.size // (2 if variant.patch_every else variant.scale),
            perceptual_crop=variant.crop,
            enhancer=networks.enhancer,
            pose_refiner=refiner,
        )

    def _optimisation(
        self, networks: GraphAvatar, groups: list[ParameterGroup], minutes: float, **options: Any
    ) -> Optimisation:
        threads = torch.get_num_threads()
        return Optimisation(
            networks,
            groups,
            options.pop("frames"),
            self.limits,
            stage="Training",
            steps=1,
            batch=4,
            final_rate=0.05,
            minutes=minutes,
            condition_noise=CONDITION_NOISE,
            unobserved_prior=self.prior,
            seed=self.seed,
            clock=lambda: time.process_time() / threads,
            **options,
        )

    @torch.no_grad()
    def score(self, networks: GraphAvatar, enhancer: Enhancer | None, picture: Path) -> dict[str, float]:
        avatar = Avatar(networks.eval(), self.model, self.track.identity, networks.settings)
        figures, seconds = [], []
        for index in self.held_out.tolist():
            splats = avatar.splats(self.track, [index])
            cameras = track_cameras(self.track, [index], self.size)
            started = time.process_time()
            raster = drawn(splats, cameras, enhancer)
            seconds.append(time.process_time() - started)
            image = to_bytes(frames_of(raster)[0].over(WHITE))
            truth, matte = self.truths[index]
            if index == int(self.held_out[len(self.held_out) // 2]):
                write_png(picture, np.hstack((truth, image)))
            pictures = (part / np.float32(255) for part in (image, truth, matte))
            figures.append(compare(*pictures, features=self.features.get(index)))
        return {
            name: mean(value for each in figures if (value := getattr(each, name)) is not None)
            for name in ("psnr", "psnr_head", "psnr_inner", "ssim", "vgg_hed", "sd")
        } | {"milliseconds": 1e3 * float(np.median(seconds))}


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = [f"| clip | trained by | {' | '.join(COLUMNS.values())} |", "|---|---|" + "--:|" * len(COLUMNS)]
    for clip, name in dict.fromkeys((row["clip"], row["name"]) for row in rows):
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in rows if (row["clip"], row["name"]) == (clip, name)]
            digits = {"steps": 0, "ssim": 4, "vgg_hed": 4, "milliseconds": 0}.get(column, 2)
            cells.append(with_spread(values, digits))
        lines.append(f"| {clip} | {VARIANTS[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.detail", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path, help="folders of tracked captures")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.json and pictures")
    parser.add_argument("--minutes", type=float, default=1.5, help="processor time of each training")
    parser.add_argument("--size", type=int, default=512, help="width and height of the scored images, pixels")
    parser.add_argument("--frames", type=int, default=96, help="training frames at most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=[*VARIANTS], help="of the variants")
    parser.add_argument("--costs", action="store_true", help="print the processor time of a step, and train nothing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else []
    for seed in arguments.seeds:
        for folder in arguments.captures:
            clip: Clip | None = None
            for name in arguments.only:
                key = {"clip": folder.stem, "name": name, "seed": seed}
                key |= {"minutes": arguments.minutes, "size": arguments.size}
                if any(key.items() <= row.items() for row in rows):
                    continue
                clip = clip or Clip(folder, arguments.size, seed, arguments.frames)
                if arguments.costs:
                    print(f"| {VARIANTS[name].title} | {clip.milliseconds_of(VARIANTS[name]):.0f} |", flush=True)
                    continue
                networks, enhancer, steps = clip.train(VARIANTS[name], arguments.minutes)
                picture = arguments.out / f"{folder.stem}-{name}-{seed}.png"
                rows.append(key | {"steps": steps} | clip.score(networks, enhancer, picture))
                with write_beside(file) as temporary:
                    temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(table_of(rows[-1:]).splitlines()[-1], flush=True)
    if rows:
        print(table_of(rows))


if __name__ == "__main__":
    main()
