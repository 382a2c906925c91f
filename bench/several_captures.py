"""What more captures of a person are worth, and what cutting a clip in two costs.

    python -m bench.several_captures --out DIR [--clip CAPTURE] [--rows cut clips cameras] [--size 96] [--steps 600]
        [--seeds 20251 20252] [--json FILE]

- `cut`: a tracked clip (`--clip`) against the same clip in two parts. Both parts hold out what the whole holds out, one
  half each, and are trained on one half of the rest each: frames and order of the draws differ in nothing but the cut.
- `clips`: a rendered person's first and second half as two clips; trained on one, on the other and on both; and on both
  where the second was filmed in a warmer, darker light, scored against frames in the first clip's light.
- `cameras`: a rendered person who looks ahead, filmed from the front and from 50 degrees to the side, seen from a third
  camera at 25 degrees; trained on the front camera and on both.

Rendered people have their true poses. The figures are the PSNR inside the head matte on held-out frames, dB, the mean
over seeds and half their spread. The length of a training is in steps, so that a busy machine changes nothing but the
time. A stopped command goes on when it is run again: finished trainings are kept in DIR.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Final

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.avatar.avatar import Avatar, load_avatar
from backend.avatar.render import draw
from backend.formats.capture import Capture, load_capture, save_capture
from backend.formats.image_files import to_bytes
from backend.formats.track import Track, load_track, save_track
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.splatting.mesh import rasterize_mesh
from backend.training.frames import WHITE, evenly_spaced, read_truth
from backend.training.metrics import compare
from backend.training.presets import Preset
from backend.training.trainer import train

from .capture_parts import make_part
from .generators import with_spread
from .known_person import SIZE, Scene

FRAMES: Final = 80
"""Of each rendered scene."""
PERSON: Final = 3
"""Seed of the rendered person."""
SCORED: Final = 12
"""Held-out frames of a capture that are scored, evenly spaced."""
SIDE, BETWEEN = 50.0, 25.0
"""Degrees from the front camera to the second and to the third, about the head."""


@dataclass(frozen=True)
class Trial:
    row: str
    name: str
    captures: tuple[Path, ...]
    """Trained on, in this order."""
    scored: dict[str, Path]
    """The captures whose held-out frames are scored, by the column."""


def score(avatar: Avatar, capture: Capture) -> float:
    """Mean PSNR inside the head matte on held-out frames, dB."""
    track = load_track(capture.folder / "track.npz", avatar.head_model)
    good = np.flatnonzero(track.flags == 0)
    figures = []
    for index in evenly_spaced(good[good >= capture.training_count], SCORED).tolist():
        truth, matte = read_truth(capture, index, avatar.settings.size)
        image = to_bytes(draw(avatar, track, [index], avatar.settings.size)[0].over(WHITE))
        found = compare(*(part / np.float32(255) for part in (image, truth, matte))).psnr_head
        assert found is not None
        figures.append(found)
    return mean(figures)


def cut(folder: Path, clip: Path) -> Iterator[Trial]:
    """A clip whole, and in two parts whose training and held-out frames together are those of the whole."""
    whole = load_capture(clip)
    track = load_track(clip / "track.npz")
    # An even number of held-out frames, and of others four times as many.
    count = whole.frame_count - whole.frame_count % 10
    frames, training = np.arange(count), round(0.8 * count)
    halves = [
        np.concatenate((frames[: training // 2], frames[training : (training + count) // 2])),
        np.concatenate((frames[training // 2 : training], frames[(training + count) // 2 :])),
    ]
    parts = [
        _made(folder / f"cut_{name}.capture", lambda to, shown=shown: make_part(whole, track, shown, to))
        for name, shown in zip(("whole", "first", "second"), (frames, *halves), strict=True)
    ]
    for name, captures in (("whole", parts[:1]), ("two halves", parts[1:])):
        yield Trial("cut", name, tuple(captures), {"held out": parts[0]})


def clips(folder: Path) -> Iterator[Trial]:
    """Two performances of a rendered person."""
    scene, half = _scene(35.0), FRAMES // 2
    first, second, warm = (
        _made(folder / f"clips_{name}.capture", lambda to, make=make: make(to))
        for name, make in (
            ("first", lambda to: _film(scene, np.arange(half), to)),
            ("second", lambda to: _film(scene, np.arange(half, FRAMES), to)),
            ("warm", lambda to: _film(scene, np.arange(half, FRAMES), to, warmer)),
        )
    )
    scored = {"first clip": first, "second clip": second}
    yield Trial("clips", "first", (first,), scored)
    yield Trial("clips", "second", (second,), scored)
    yield Trial("clips", "both", (first, second), scored)
    yield Trial("clips", "both, the second in a warmer light", (first, warm), scored)


def cameras(folder: Path) -> Iterator[Trial]:
    """A rendered person who hardly turns, seen from three sides."""
    scene = _scene(6.0)
    front, side, between = (
        _made(
            folder / f"cameras_{name}.capture",
            lambda to, degrees=degrees: _film(scene.seen_from(_around(scene, degrees)), np.arange(FRAMES), to),
        )
        for name, degrees in (("front", 0.0), ("side", SIDE), ("between", BETWEEN))
    )
    scored = {"front": front, "side": side, "third view": between}
    yield Trial("cameras", "front camera", (front,), scored)
    yield Trial("cameras", "front and side camera", (front, side), scored)


def warmer(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1], sRGB-encoded."""
    return image * (0.95, 0.8, 0.6) + (0.03, 0.0, 0.0)


def _scene(yaw: float) -> Scene:
    return Scene(load_head(), PERSON, FRAMES, yaw, oversampling=1)


def _around(scene: Scene, degrees: float) -> np.ndarray:
    """(4, 4): from the scene's camera to one that looks at the head from `degrees` to its side."""
    centre = np.array((0, 0, scene.truth.head_to_camera[:, 2, 3].mean()))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("Y", degrees, degrees=True).as_matrix()
    motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion


def _made(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, which `make` fills unless an earlier run has."""
    if not (folder / "track.npz").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
    return folder


def _film(
    scene: Scene, shown: np.ndarray, folder: Path, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> None:
    """Frames `shown` of a scene as a tracked capture with the true poses; the matte is that of the mesh."""
    model, count = load_head(), len(shown)
    truth = _shown(scene.truth, shown)
    capture = Capture(
        folder=folder,
        source_name=folder.stem,
        source_sha256=folder.stem,
        size=SIZE,
        fps=truth.fps,
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=truth.intrinsics.astype(np.float64),
        frame_numbers=shown,
        frame_times=shown / float(truth.fps),
        landmarks=np.full((count, 478, 3), np.nan, np.float32),
        scores=np.zeros((count, 52), np.float32),
        detector_pose=np.full((count, 4, 4), np.nan, np.float32),
        flags=np.zeros(count, np.int32),
    )
    for name in ("frames", "mattes", "head_mattes"):
        (folder / name).mkdir(parents=True)
    save_capture(capture)
    with torch.no_grad():
        parts = (truth.identity[None], truth.expression, truth.rotations)
        posed = Head(model)(*(torch.as_tensor(part) for part in parts)).vertices.numpy()
    for index, (vertices, camera) in enumerate(zip(posed, truth.head_to_camera, strict=True)):
        seen = vertices @ camera[:3, :3].T + camera[:3, 3]
        covered = rasterize_mesh(seen, model.faces, capture.intrinsics, SIZE, SIZE).covered
        for path in (capture.matte_path(index), capture.head_matte_path(index)):
            cv2.imwrite(str(path), covered.astype(np.uint8) * 255)
        image = scene.image(int(shown[index]))
        if change:
            image = to_bytes(change(image / 255))
        cv2.imwrite(str(capture.frame_path(index)), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    save_track(replace(truth, training_count=capture.training_count), folder / "track.npz")


def _shown(track: Track, shown: np.ndarray) -> Track:
    names = ("expression", "rotations", "head_to_camera", "residual", "flags")
    return replace(track, **{name: getattr(track, name)[shown] for name in names})


def table_of(results: Sequence[dict[str, object]]) -> str:
    """Markdown: for each row its trainings with the mean over seeds and half their spread."""
    lines: list[str] = []
    for row in dict.fromkeys(str(each["row"]) for each in results):
        own = [each for each in results if each["row"] == row]
        columns = list(dict.fromkeys(name for each in own for name in each["psnr_head"]))
        lines += ["", f"| {row} | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
        for name in dict.fromkeys(str(each["name"]) for each in own):
            cells = []
            for column in columns:
                values = [each["psnr_head"][column] for each in own if each["name"] == name]
                cells.append(with_spread(values, 2))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.several_captures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for captures, avatars and results.json")
    parser.add_argument("--clip", type=Path, help="a tracked capture, for the row cut")
    parser.add_argument("--rows", nargs="+", choices=("cut", "clips", "cameras"), default=["clips", "cameras"])
    parser.add_argument("--size", type=int, default=96, help="width and height of the training images in pixels")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", nargs="+", type=int, default=[20251, 20252])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if "cut" in arguments.rows and arguments.clip is None:
        parser.error("the row cut needs --clip")
    arguments.out.mkdir(parents=True, exist_ok=True)
    makers = {"cut": lambda folder: cut(folder, arguments.clip), "clips": clips, "cameras": cameras}
    plan = Preset(size=arguments.size, warmup_steps=arguments.steps // 4, steps=arguments.steps, refinement=False)
    results: list[dict[str, object]] = []
    for row in arguments.rows:
        trials = list(makers[row](arguments.out))
        for seed in arguments.seeds:
            for trial in trials:
                file = arguments.out / f"{row}-{trial.name.replace(' ', '-').replace(',', '')}-{seed}.effigy"
                avatar = (
                    load_avatar(file)
                    if file.is_file()
                    else train(trial.captures, file, plan=plan, size=arguments.size, device="cpu", seed=seed)
                )
                figures = {name: score(avatar, load_capture(folder)) for name, folder in trial.scored.items()}
                results.append({"row": row, "name": trial.name, "seed": seed, "psnr_head": figures})
                print(row, trial.name, seed, {name: round(figure, 2) for name, figure in figures.items()}, flush=True)
    print(table_of(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
