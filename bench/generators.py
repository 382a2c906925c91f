"""The generators of Gaussians at equal processor time: held-out and training frames, size, posing.

    python -m bench.generators CAPTURE [CAPTURE ...] --out DIR [--preset draft] [--only NAME ...] [--minutes 4]
        [--size 256] [--seeds 20251 ...] [--sizes K,F,W ...] [--all-frames] [--head-only]

Every generator, or those of `--only`, is trained on every capture with every seed by the plan of a preset, U-Nets
without what the paper adds to them, for so many minutes of processor time divided by the number of threads, whatever
else the machine does. `--sizes` adds blendshapes of other sizes: K shapes, F features, W hidden units. A stopped
command goes on when it is run again: finished rows and checkpoints are kept in DIR. Frames are those that `evaluate`
scores, every fourth of them. With `--all-frames` each avatar is scored on all of them, by `evaluate` itself, whose
columns are then in the table too, with the frames tracked by the avatar.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import torch

from backend.avatar.avatar import Avatar
from backend.avatar.render import draw
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.formats.capture import Capture, load_capture
from backend.formats.image_files import to_bytes
from backend.formats.track import load_track
from backend.storage import write_beside
from backend.training.checkpoint import checkpoint_path
from backend.training.evaluation import WHITE, evaluate
from backend.training.frames import evenly_spaced, read_truth
from backend.training.metrics import compare
from backend.training.optimisation import SEED
from backend.training.presets import PRESETS
from backend.training.trainer import train

EVERY: Final = 4
"""Of the held-out frames."""
TRAINING_FRAMES: Final = 24
POSED: Final = 20
"""Times that one frame is posed, for the milliseconds."""
COLUMNS: Final = {
    "steps": "steps",
    "psnr": "held-out PSNR",
    "psnr_head": "in the head",
    "psnr_inner": "inner",
    "ssim": "SSIM",
    "training": "training frames",
    "milliseconds": "ms to pose",
    "megabytes": "MB",
}

THOROUGH_COLUMNS: Final = {
    "steps": "steps",
    "psnr": "held-out PSNR",
    "psnr_head": "in the head",
    "psnr_inner": "inner",
    "psnr_rim": "rim",
    "ssim": "SSIM",
    "vgg_hed": "vgg_hed",
    "f_lmd": "F-LMD",
    "jitter": "jitter",
    "training": "training frames",
    "refitted": "tracked by the avatar",
    "refitted_head": "in the head",
    "refitted_inner": "inner",
    "megabytes": "MB",
}
"""With `--all-frames`."""


def score_all_frames(avatar: Avatar, capture: Capture, out: Path) -> dict[str, float]:
    """THOROUGH_COLUMNS for one avatar; what `evaluate` writes is left in `out`."""
    metrics = evaluate(avatar, capture, out, retrack=True)
    mean_of, refitted = metrics.mean, metrics.refitted
    names = ("psnr", "psnr_head", "psnr_inner", "psnr_rim", "ssim", "vgg_hed", "f_lmd")
    figures = {
        "steps": avatar.metrics["steps"],
        **{name: getattr(mean_of, name) for name in names},
        "jitter": metrics.jitter,
        "training": metrics.train_psnr,
        "refitted": refitted and refitted.psnr,
        "refitted_head": refitted and refitted.psnr_head,
        "refitted_inner": refitted and refitted.psnr_inner,
        "megabytes": metrics.megabytes,
    }
    return {name: value for name, value in figures.items() if value is not None}


def score(avatar: Avatar, capture: Capture) -> dict[str, float]:
    """The columns of the table for one avatar."""
    track = load_track(capture.folder / "track.npz", avatar.head_model)
    good = np.flatnonzero(track.flags == 0)
    held_out = good[good >= capture.training_count][::EVERY]
    training = evenly_spaced(good[good < capture.training_count], TRAINING_FRAMES)

    def measured(frames: np.ndarray) -> dict[str, float]:
        figures = []
        for index in frames.tolist():
            truth, matte = read_truth(capture, index, avatar.settings.size)
            image = to_bytes(draw(avatar, track, [index], avatar.settings.size)[0].over(WHITE))
            figures.append(compare(image / np.float32(255), truth / np.float32(255), matte / np.float32(255)))
        return {
            name: mean(value for each in figures if (value := getattr(each, name)) is not None)
            for name in ("psnr", "psnr_head", "psnr_inner", "ssim")
        }

    started = time.process_time()
    for _ in range(POSED):
        avatar.splats(track, [int(held_out[0])])
    milliseconds = 1e3 * (time.process_time() - started) / POSED
    return {
        "steps": avatar.metrics["steps"],
        **measured(held_out),
        "training": measured(training)["psnr"],
        "milliseconds": milliseconds,
        "megabytes": avatar.megabytes,
    }


def with_spread(values: list[float], digits: int) -> str:
    """The mean, and half the distance between the smallest and the largest where there are several."""
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def table_of(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row for each capture and generator, with the mean over its seeds and half their spread."""
    columns = THOROUGH_COLUMNS if "vgg_hed" in rows[0] else COLUMNS
    lines = [f"| clip | generator | {' | '.join(columns.values())} |", "|---|---|" + "--:|" * len(columns)]
    for clip, name in dict.fromkeys((row["clip"], row["name"]) for row in rows):
        cells = []
        for column in columns:
            values = [row[column] for row in rows if (row["clip"], row["name"]) == (clip, name) and column in row]
            if not values:
                cells.append("–")
                continue
            digits = {"steps": 0, "ssim": 3, "vgg_hed": 4, "milliseconds": 1}.get(column, 2)
            cells.append(with_spread(values, digits))
        lines.append(f"| {clip} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.generators", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path, help="folders of tracked captures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the avatars and rows.json")
    parser.add_argument("--preset", choices=PRESETS, default="draft", help="whose plan is trained by")
    parser.add_argument("--only", nargs="+", choices=GENERATORS, default=[*GENERATORS], help="of the generators")
    parser.add_argument("--minutes", type=float, default=4.0, help="processor time of each training")
    parser.add_argument("--size", type=int, default=256, help="width and height of the training images in pixels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--sizes", nargs="*", default=[], help="K,F,W of further blendshapes")
    parser.add_argument("--head-only", action="store_true", help="train no bust")
    parser.add_argument("--all-frames", action="store_true", help="score by `evaluate`, on all held-out frames")
    arguments = parser.parse_args()
    sizes = {name: GENERATORS[name] for name in arguments.only}
    for text in arguments.sizes:
        shapes, features, width = map(int, text.split(","))
        sizes[f"blendshapes {text}"] = {"blendshapes": shapes, "feature_size": features, "neural_width": width}
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else []
    threads = torch.get_num_threads()
    for seed in arguments.seeds:
        for folder in arguments.captures:
            capture = load_capture(folder)
            for name, settings in sizes.items():
                key = {
                    "clip": folder.stem,
                    "name": name if arguments.preset == "draft" else f"{name}, {arguments.preset}",
                    "seed": seed,
                    "minutes": arguments.minutes,
                    "size": arguments.size,
                } | ({"all_frames": True} if arguments.all_frames else {})
                if any(key.items() <= row.items() for row in rows):
                    continue
                path = arguments.out / f"{folder.stem}-{key['name'].replace(',', '').replace(' ', '-')}-{seed}.effigy"
                avatar = train(
                    folder,
                    path,
                    preset=arguments.preset,
                    resume=checkpoint_path(path).exists(),
                    settings=AvatarSettings(**settings),
                    size=arguments.size,
                    minutes=arguments.minutes,
                    device="cpu",
                    seed=seed,
                    head_only=arguments.head_only,
                    clock=lambda: time.process_time() / threads,
                )
                if arguments.all_frames:
                    rows.append(key | score_all_frames(avatar, capture, path.with_suffix("")))
                else:
                    rows.append(key | score(avatar, capture))
                with write_beside(file) as temporary:
                    temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(table_of(rows[-1:]).splitlines()[-1], flush=True)
    print(table_of(rows))


if __name__ == "__main__":
    main()
