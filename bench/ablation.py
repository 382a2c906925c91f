"""Ablation study: the avatar trained without each part of the method at an equal budget, in the columns of the paper.

    python -m bench.ablation CAPTURE --out DIR [--preset draft] [--minutes M] [--size N] [--device auto] [--only NAME …]

A stopped command resumes when it is run again: finished variants are kept, and a partly trained one continues from its
checkpoint. DIR receives `NAME.effigy` and `NAME/metrics.json` for each variant, `table.md`, and `grid.png` (the true
image, then each variant, for three held-out frames).

`--minutes` counts processor time divided by the number of training threads (wall-clock time on a GPU), so that every
variant gets the same budget, whatever else the machine does. The table has LPIPS values only if the LPIPS weights are
on this machine; `vgg_hed` is always measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from backend.avatar.avatar import load_avatar
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.devices import choose_device
from backend.formats.capture import load_capture
from backend.formats.image_files import write_png
from backend.progress import Progress
from backend.service.terminal import terminal_progress
from backend.storage import write_beside
from backend.training.checkpoint import checkpoint_path
from backend.training.evaluation import evaluate
from backend.training.presets import PRESETS, Preset, find_preset
from backend.training.trainer import train

GRID_FRAMES = 3
ENHANCER_WIDTH = 16
"""Width of the enhancer in the full method, also with presets that train without an enhancer."""


@dataclass(frozen=True)
class Variant:
    """The full method with some settings changed."""

    name: str
    title: str
    plan: dict[str, Any] = field(default_factory=dict)
    """Fields of `Preset` to change."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of `AvatarSettings` to change."""


VARIANTS = (
    Variant("full", "full"),
    Variant("no_warmup", "without warm-up", plan={"warmup_steps": 0}),
    Variant("no_neural", "without neural Gaussians", settings={"neural_per_anchor": 0}),
    Variant("no_refinement", "without GGO", plan={"refinement": False}),
    Variant("no_enhancer", "without enhancer", settings={"enhancer_width": 0}),
    Variant("blendshapes", "blendshapes for both U-Nets", settings=GENERATORS["blendshapes"]),
    *(Variant(f"k{k}", f"k = {k}", settings={"neural_per_anchor": k}) for k in (1, 5, 10)),
)
"""k is the number of neural Gaussians per anchor; the full method has k = 2."""


def run(
    capture_folder: Path,
    out: Path,
    *,
    preset: str,
    minutes: float | None,
    size: int | None,
    device: str,
    only: list[str],
    progress: Progress,
) -> str:
    """Train and score the variants that are not finished, and return the table as Markdown."""
    base = replace(find_preset(preset, paper=True), refinement=True, coarse_until=0.0)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    for variant in chosen:
        if (out / variant.name / "metrics.json").is_file():
            continue
        progress.message(f"{variant.title} …")
        _train(variant, base, capture_folder, out / f"{variant.name}.effigy", minutes, size, device, progress)
        avatar = load_avatar(out / f"{variant.name}.effigy", device=choose_device(device))
        evaluate(avatar, load_capture(capture_folder), out / variant.name, progress=progress)
    table = table_of(chosen, out, preset, minutes)
    with write_beside(out / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    with write_beside(out / "grid.png") as temporary:
        write_png(temporary, grid_of(chosen, out))
    return table


def _train(
    variant: Variant,
    base: Preset,
    capture: Path,
    path: Path,
    minutes: float | None,
    size: int | None,
    device: str,
    progress: Progress,
) -> None:
    if path.is_file():
        return
    settings = AvatarSettings(**({"enhancer_width": ENHANCER_WIDTH} | variant.settings))
    train(
        capture,
        path,
        preset="ablation",
        plan=replace(base, **variant.plan),
        size=size,
        device=device,
        minutes=minutes,
        resume=checkpoint_path(path).is_file(),
        settings=settings,
        clock=_clock(device),
        progress=progress,
    )


def _clock(device: str) -> Callable[[], float]:
    """The clock of the training budget, in seconds: processor time of this process divided by its number of threads; on
    a GPU, wall-clock time.
    """
    if choose_device(device).type != "cpu":
        return time.monotonic
    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads


def table_of(variants: list[Variant], out: Path, preset: str, minutes: float | None) -> str:
    """Results in Markdown: the columns of the paper's table 2, and the PSNR inside the head and on training frames."""
    columns = {
        "L2": ("l2", 5),
        "PSNR": ("psnr", 2),
        "in the head": ("psnr_head", 2),
        "SSIM": ("ssim", 4),
        "LPIPS": ("lpips", 4),
        "vgg_hed": ("vgg_hed", 4),
        "training PSNR": ("train_psnr", 2),
        "s/frame": ("seconds_per_frame", 3),
        "MB": ("megabytes", 2),
    }
    budget = f"{minutes:g} minutes of work each" if minutes else f"preset {preset}"
    lines = [
        f"Held-out frames, as tracked; {budget}.",
        "",
        f"| variant | {' | '.join(columns)} | steps |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for variant in variants:
        metrics = json.loads((out / variant.name / "metrics.json").read_text(encoding="utf-8"))
        figures = [
            "–" if metrics.get(name) is None else f"{metrics[name]:.{digits}f}" for name, digits in columns.values()
        ]
        steps = load_avatar(out / f"{variant.name}.effigy").metrics["steps"]
        lines.append(f"| {variant.title} | {' | '.join(figures)} | {steps} |")
    return "\n".join(lines) + "\n"


def grid_of(variants: list[Variant], out: Path) -> np.ndarray:
    """(H, W, 3) uint8: a row per held-out frame with the true image and every variant, below a header with titles."""
    folders = [out / variant.name / "frames" for variant in variants]
    names = sorted(path.name.removeprefix("truth_") for path in folders[0].glob("truth_*.png"))
    picked = [
        names[index] for index in np.linspace(0, len(names) - 1, min(GRID_FRAMES, len(names))).round().astype(int)
    ]

    def read(path: Path) -> np.ndarray:
        return cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    rows = [
        np.concatenate([read(folders[0] / f"truth_{name}"), *(read(folder / f"pred_{name}") for folder in folders)], 1)
        for name in picked
    ]
    width = rows[0].shape[1] // (len(variants) + 1)
    header = np.full((max(24, width // 10), rows[0].shape[1], 3), 255, np.uint8)
    for column, title in enumerate(["truth", *(variant.title for variant in variants)]):
        cv2.putText(
            header,
            title,
            (column * width + 6, header.shape[0] - 8),
            cv2.FONT_HERSHEY_SIMPLEX,
            width / 512,
            (40, 40, 40),
            1,
            cv2.LINE_AA,
        )
    return np.concatenate([header, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path, help="folder of a tracked capture")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="draft")
    parser.add_argument(
        "--minutes", type=float, help="training time of each variant; without it, the preset's number of steps"
    )
    parser.add_argument("--size", type=int, help="image size in pixels; without it, the preset's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[variant.name for variant in VARIANTS], help="train only these"
    )
    arguments = parser.parse_args()
    progress = terminal_progress()
    table = run(
        arguments.capture,
        arguments.out,
        preset=arguments.preset,
        minutes=arguments.minutes,
        size=arguments.size,
        device=arguments.device,
        only=arguments.only,
        progress=progress,
    )
    progress.close()
    print(table)


if __name__ == "__main__":
    main()
