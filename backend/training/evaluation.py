"""Evaluation: the avatar against the held-out frames of its capture, as metrics, images and a contact sheet.

The last 20 % of the capture, in time order, are held out; nothing has been trained, fitted or chosen on them. They are
scored as tracked: expression and pose come from the track, and nothing is adjusted at test time.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.render import SplatSource, draw
from ..errors import EffigyError
from ..formats.capture import Capture
from ..formats.image_files import to_bytes, write_png
from ..formats.track import Track, load_track
from ..progress import SILENT, Progress
from ..storage import write_beside
from .baselines import nearest_training_frames, train_baseline
from .evaluation_sheet import evaluation_sheet
from .frame_scores import score_frames
from .frames import TRAIN_FRAMES, WHITE, evenly_spaced, person_matte, premultiplied_cutout, read_truth
from .metrics import ImageMetrics, average, compare, psnr
from .own_light import score_in_own_light
from .perceptual import find_lpips, hed_features
from .pose_range import outside_training
from .report import FrameMetrics, Metrics
from .temporal_stability import landmark_detector, measure_jitter
from .track_by_avatar import track_by_avatar

PERCEPTUAL_FRAMES = 32
"""`vgg_hed` and `lpips` are means over at most this many frames, evenly spaced: on a CPU they take most of the time."""

DEFAULT_BASELINE_MINUTES = 5.0
"""Used for an avatar whose file does not record its training time."""


def evaluate(
    avatar: Avatar,
    capture: Capture,
    out: Path,
    *,
    baselines: bool = False,
    baseline_minutes: float | None = None,
    retrack: bool = False,
    own_light: bool = False,
    progress: Progress = SILENT,
) -> Metrics:
    """Score the avatar on the capture's held-out frames; write metrics.json, frames/ and sheet.png into `out`.

    `baselines` adds the nearest training frame and the vertex-bound Gaussians, the latter trained here for as long as
    the avatar was (or for `baseline_minutes`). `retrack` also scores the frames in poses that are fitted to them
    through the avatar, which shows how much of the error comes from the track. `own_light` also scores them in the
    capture's light (`capture_light`), which is found on its training frames: an avatar that was trained on several
    captures has the colours of the first. Everything is scored on the head alone; where avatar and capture show
    shoulders, the whole person is scored beside it.
    """
    out = Path(out)
    _check_folder(out)
    track = load_track(capture.folder / "track.npz", avatar.head_model)
    if len(track.flags) != capture.frame_count:
        raise EffigyError(
            f"The track of {capture.folder} has {len(track.flags)} frames, the capture has "
            f"{capture.frame_count}: track the capture again."
        )
    good = np.flatnonzero(track.flags == 0)
    training, scored = good[good < capture.training_count], good[good >= capture.training_count]
    if not len(training) or not len(scored):
        raise EffigyError(
            f"{capture.folder} has no good frames to be scored on (the last fifth is held out, and "
            "flagged frames do not count): use a longer clip."
        )
    size = avatar.settings.size
    head = avatar if avatar.bust is None else avatar.without_bust()
    evaluation = _Evaluation(head, capture, track, size, training, scored, progress)
    if baselines:
        evaluation.add_nearest()
        minutes = baseline_minutes or avatar.metrics.get("training_seconds", 60 * DEFAULT_BASELINE_MINUTES) / 60
        evaluation.add_vertex_bound(minutes)
    # Nothing takes its place before everything is written; the figures come last.
    with (
        write_beside(out / "metrics.json", durable=False) as metrics_file,
        write_beside(out / "sheet.png", durable=False) as sheet_file,
        write_beside(out / "frames", durable=False) as folder,
    ):
        folder.mkdir()
        evaluation.score(folder)
        if retrack:
            evaluation.score_tracked_by_avatar()
        if own_light:
            evaluation.relit = score_in_own_light(evaluation.avatar, capture, track, training, scored, size, progress)
        if avatar.bust is not None and track.torso_to_camera is not None:
            evaluation.score_with_bust(avatar)
        metrics = evaluation.metrics()
        sheet = evaluation_sheet(capture.source_name, folder, metrics)
        write_png(sheet_file, sheet)
        metrics_file.write_text(json.dumps(metrics.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    progress.preview(sheet)
    return metrics


class _Evaluation:
    """The state of one `evaluate`. Frames are processed one at a time, so that a long clip does not fill memory.

    `training`: numbers of the unflagged frames before the held-out part; `scored`: of the unflagged held-out frames.
    `results`: metrics of each method in the order of `scored`; "pred" is the avatar, the others are the baselines.
    """

    def __init__(
        self,
        avatar: Avatar,
        capture: Capture,
        track: Track,
        size: int,
        training: np.ndarray,
        scored: np.ndarray,
        progress: Progress,
    ) -> None:
        self.avatar, self.capture, self.track, self.size = avatar, capture, track, size
        self.training, self.scored, self.progress = training, scored, progress
        self.extrapolated = outside_training(track, training, scored)
        self.lpips_network, self.lpips = find_lpips() or (None, None)
        self.perceptual_frames = set(evenly_spaced(scored, PERCEPTUAL_FRAMES).tolist())
        self.nearest: dict[int, int] = {}
        self.baseline_sources: dict[str, SplatSource] = {}
        self.baseline_minutes: float | None = None
        self.results: dict[str, list[ImageMetrics]] = {"pred": []}
        self.render_seconds: list[float] = []
        self.retracked: list[ImageMetrics] = []
        self.relit: list[ImageMetrics] = []
        self.whole: list[ImageMetrics] = []

    def add_nearest(self) -> None:
        """Add the baseline that shows the training frame nearest in pose."""
        found = nearest_training_frames(self.track, self.avatar.head_model, self.training, self.scored)
        self.nearest = dict(zip(self.scored.tolist(), found.tolist(), strict=True))
        self.results["nearest"] = []

    def add_vertex_bound(self, minutes: float) -> None:
        """Train the vertex-bound Gaussians for `minutes` and add them as a baseline."""
        self.baseline_minutes = round(minutes, 2)
        self.baseline_sources["vertex_bound"] = train_baseline(
            self.capture, self.track, self.avatar.head_model, size=self.size, minutes=minutes, progress=self.progress
        )
        self.results["vertex_bound"] = []

    def score(self, folder: Path) -> None:
        """Render and measure every scored frame with every method, and write all images into `folder`."""
        draw(self.avatar, self.track, [int(self.scored[0])], self.size)  # compiles the kernels before anything is timed
        with landmark_detector() as detector:
            for done, index in enumerate(self.scored.tolist(), start=1):
                self.progress.raise_if_cancelled()
                truth, matte = read_truth(self.capture, index, self.size)
                write_png(folder / f"truth_{index:06d}.png", truth)
                write_png(folder / f"mask_{index:06d}.png", matte)
                true_landmarks = detector(truth)
                features = None
                if index in self.perceptual_frames:
                    with torch.no_grad():
                        features = hed_features()(torch.from_numpy(truth)[None] / 255)
                cutout = premultiplied_cutout(self.capture, index, self.size)
                for name, image, own in self._images(index):
                    write_png(folder / f"{name}_{index:06d}.png", image)
                    # Metrics are taken on the 8-bit images on disk, so that anybody can compute them again; only
                    # `psnr_rim` needs the alpha of the rendered frame.
                    self.results[name].append(
                        compare(
                            image / np.float32(255),
                            truth / np.float32(255),
                            matte / np.float32(255),
                            features=features,
                            lpips=self.lpips if features is not None else None,
                            landmarks=(detector(image), true_landmarks),
                            cutouts=(own, cutout),
                        )
                    )
                latest = self.results["pred"][-1]
                self.progress.update(
                    "Evaluating", done, len(self.scored), psnr=latest.psnr, psnr_head=latest.psnr_head or 0.0
                )

    def _images(self, index: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Frame `index` by each method: the key of `results`, the frame over white, (size, size, 3) uint8, and as
        `premultiplied_cutout`.
        """
        started = time.perf_counter()
        frame = draw(self.avatar, self.track, [index], self.size)[0]
        self.render_seconds.append(time.perf_counter() - started)
        yield "pred", to_bytes(frame.over(WHITE)), frame.rgba
        if self.nearest:
            nearest = self.nearest[index]
            yield (
                "nearest",
                read_truth(self.capture, nearest, self.size)[0],
                premultiplied_cutout(self.capture, nearest, self.size),
            )
        for name, source in self.baseline_sources.items():
            frame = draw(source, self.track, [index], self.size)[0]
            yield name, to_bytes(frame.over(WHITE)), frame.rgba

    def score_tracked_by_avatar(self) -> None:
        """Score the frames once more with their poses fitted through the avatar, which has never seen them."""
        flags = np.ones_like(self.track.flags)
        flags[self.scored] = 0
        track = replace(self.track, flags=flags)
        fitted = track_by_avatar(self.avatar, self.capture, track, size=self.size, progress=self.progress).track
        self.retracked = score_frames(
            lambda index: draw(self.avatar, fitted, [index], self.size)[0],
            self.capture,
            self.scored,
            self.size,
            self.progress,
        )

    def score_with_bust(self, avatar: Avatar) -> None:
        """Score the frames once more with the bust of `avatar`, against the whole person."""
        self.whole = score_frames(
            lambda index: draw(avatar, self.track, [index], self.size)[0],
            self.capture,
            self.scored,
            self.size,
            self.progress,
            stage="Scoring the bust",
            matte_of=person_matte,
        )

    def _jitter(self) -> float | None:
        """`measure_jitter` of the avatar on the scored frames, pixels."""
        with landmark_detector() as detect:
            return measure_jitter(
                self.avatar, self.track, self.avatar.head_model, self.scored, self.size, detect, self.progress
            )

    def metrics(self) -> Metrics:
        ours = self.results["pred"]
        inside = [m for m, out in zip(ours, self.extrapolated, strict=True) if not out]
        outside = [m for m, out in zip(ours, self.extrapolated, strict=True) if out]
        train_psnr, train_psnr_head = self._training_psnr()
        mean = average(ours)
        assert mean is not None
        return Metrics(
            mean=mean,
            frames=len(ours),
            flagged=self.capture.frame_count - self.capture.training_count - len(ours),
            landmark_frames=sum(m.f_lmd is not None for m in ours),
            perceptual_frames=len(self.perceptual_frames),
            train_psnr=train_psnr,
            train_psnr_head=train_psnr_head,
            interpolated_frames=len(inside),
            interpolated=average(inside),
            extrapolated_frames=len(outside),
            extrapolated=average(outside),
            baselines={
                name: means
                for name, results in self.results.items()
                if name != "pred" and (means := average(results)) is not None
            },
            refitted=average(self.retracked),
            relit=average(self.relit),
            with_bust=average(self.whole),
            jitter=self._jitter(),
            baseline_minutes=self.baseline_minutes,
            seconds_per_frame=float(np.median(self.render_seconds)),
            megabytes=self.avatar.megabytes,
            lpips_network=self.lpips_network,
            protocol=f"as tracked: the last 20 % of the frames in time order, no fitting at test time; whole "
            f"{self.size} x {self.size} square, everything but head and neck white in both images",
            device=str(self.avatar.device),
            settings=self.avatar.settings.to_dict(),
            per_frame=tuple(
                FrameMetrics(int(i), bool(e), m) for i, e, m in zip(self.scored, self.extrapolated, ours, strict=True)
            ),
        )

    def _training_psnr(self) -> tuple[float, float | None]:
        """Mean PSNR on training frames, dB: of the whole frame, and inside the head matte (None if it is empty)."""
        whole, head = [], []
        chosen = evenly_spaced(self.training, TRAIN_FRAMES).tolist()
        for done, index in enumerate(chosen, start=1):
            truth, matte = read_truth(self.capture, index, self.size)
            image = to_bytes(draw(self.avatar, self.track, [index], self.size)[0].over(WHITE))
            squared = np.square(image / 255.0 - truth / 255.0).mean(axis=2)
            whole.append(psnr(squared.mean()))
            if (matte >= 128).any():
                head.append(psnr(squared[matte >= 128].mean()))
            self.progress.update("Scoring training frames", done, len(chosen))
        return float(np.mean(whole)), float(np.mean(head)) if head else None


def _check_folder(out: Path) -> None:
    """Raise an `EffigyError` if `out / "frames"` holds files that no evaluation wrote, as in a capture's folder."""
    frames = out / "frames"
    if not frames.is_dir():
        return
    foreign = next((p.name for p in sorted(frames.iterdir()) if not re.fullmatch(r"[a-z_]+_\d{6}\.png", p.name)), None)
    if foreign:
        raise EffigyError(
            f"{frames} holds other files (such as {foreign}), which evaluation would replace: "
            "choose another folder with --out."
        )
