"""The command line: bad input is refused in one sentence with exit code 2 and leaves no file, and progress is shown."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from footage_clips import write_clip, write_sound
from safetensors.torch import save_file
from small_capture import make_small_capture

from backend.assets import asset_path
from backend.errors import EffigyError
from backend.footage.decode import read_frames
from backend.service import terminal
from backend.service.cli import main
from backend.service.tables import findings_table
from backend.service.terminal import BarProgress, PlainProgress

ROOT = Path(__file__).resolve().parents[2]


def effigy(*arguments: object, cwd: Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`python -m backend ARGUMENTS`, as a user types it, with a data folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EFFIGY_USER": str(cwd / "user")}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "backend", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr."""
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr.strip()


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "user" not in path.parts}


@pytest.fixture
def grey_clip(tmp_path) -> Path:
    return write_clip(
        tmp_path / "wall.mp4", [np.full((128, 128, 3), 120 + k, np.uint8) for k in range(12)], pixels="yuv420p"
    )


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """A few images of a person."""
    return [frame.image for frame in read_frames(asset_path("demo.mp4"), max_frames=6)]


@pytest.fixture
def face_clip(tmp_path, faces) -> Path:
    return write_clip(tmp_path / "person.mp4", faces, pixels="yuv420p")


# --- footage


def test_a_video_that_does_not_exist(tmp_path):
    assert "gone.mp4" in refused(effigy("capture", "gone.mp4", "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == set()


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "notes.mp4").write_text("this is a shopping list\n" * 50)
    assert "notes.mp4" in refused(effigy("capture", "notes.mp4", "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == {"notes.mp4"}


def test_a_video_whose_end_with_its_index_is_missing(tmp_path, grey_clip):
    content = grey_clip.read_bytes()
    grey_clip.write_bytes(content[: len(content) // 2])
    assert "wall.mp4" in refused(effigy("capture", grey_clip, "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == {"wall.mp4"}


def test_a_file_with_sound_only(tmp_path):
    write_sound(tmp_path / "voice.m4a")
    assert "voice.m4a" in refused(effigy("capture", "voice.m4a", "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == {"voice.m4a"}


def test_a_video_without_a_face(tmp_path, grey_clip):
    assert "No face" in refused(effigy("capture", grey_clip, "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == {"wall.mp4"}


def test_a_video_of_two_people(tmp_path, faces):
    write_clip(
        tmp_path / "pair.mp4", [np.concatenate([face, face[:, ::-1]], axis=1) for face in faces], pixels="yuv420p"
    )
    assert "two faces" in refused(effigy("capture", "pair.mp4", "x.capture", cwd=tmp_path))
    assert everything_below(tmp_path) == {"pair.mp4"}


# --- paths that cannot be written


@pytest.mark.parametrize(
    "path",
    [
        "person.mp4/x.capture",
        pytest.param(
            "/proc/effigy/x.capture", marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
        ),
    ],
)
def test_a_folder_that_cannot_be_written(tmp_path, face_clip, path):
    started = time.monotonic()
    assert "cannot be written" in refused(effigy("capture", face_clip, path, cwd=tmp_path))
    assert time.monotonic() - started < 20 and everything_below(tmp_path) == {"person.mp4"}


def test_training_refuses_an_unwritable_path_before_it_starts(tmp_path):
    make_known_capture(tmp_path)
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(effigy("train", "ball.capture", "file/ball.effigy", cwd=tmp_path))


@pytest.mark.parametrize("command", ["capture", "train"])
def test_a_disk_that_becomes_full(tmp_path, faces, command):
    """On a real file system of half a megabyte, made in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    enter = (
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=512k none small && "$@"; code=$?; ls -A small; exit $code',
        "sh",
    )
    if not shutil.which("unshare") or subprocess.run([*enter, "true"], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("a small file system cannot be made here")
    if command == "capture":
        write_clip(tmp_path / "person.mp4", faces * 4, pixels="yuv420p")
        ended = effigy("capture", "person.mp4", "small/x.capture", cwd=tmp_path, prefix=enter)
    else:
        make_known_capture(tmp_path)
        ended = effigy(
            "train",
            "ball.capture",
            "small/ball.effigy",
            "--minutes",
            "0.05",
            "--size",
            "64",
            cwd=tmp_path,
            prefix=enter,
        )
    assert "is full" in refused(ended)
    # A complete checkpoint from before the disk was full may stay: training can continue from it.
    left = [line for line in ended.stdout.splitlines() if line.startswith(".") or line in ("x.capture", "ball.effigy")]
    assert not left, ended.stdout


# --- heads, tracks, avatars


class _RunsSomething:
    def __reduce__(self):
        return os.system, ("echo it ran > ran.txt",)


def make_known_capture(folder: Path) -> None:
    """A tracked capture whose head model is registered for the command line."""
    before = os.environ.get("EFFIGY_USER")
    os.environ["EFFIGY_USER"] = str(folder / "user")
    try:
        make_small_capture(folder, frames=10)
    finally:
        os.environ.pop("EFFIGY_USER") if before is None else os.environ.update(EFFIGY_USER=before)


def test_a_head_file_that_would_run_a_program_is_refused(tmp_path):
    make_known_capture(tmp_path)
    (tmp_path / "head.pkl").write_bytes(pickle.dumps({"v_template": _RunsSomething()}))
    before = everything_below(tmp_path)
    assert "head.pkl" in refused(effigy("track", "ball.capture", "--head", "head.pkl", cwd=tmp_path))
    assert everything_below(tmp_path) == before


def write_avatar(path: Path, **header: object) -> None:
    from backend.avatar.settings import AvatarSettings

    content = {
        "schema": 1,
        "settings": AvatarSettings().to_dict(),
        "head_name": "a scan",
        "head_fingerprint": "0" * 16,
        "metrics": {},
    } | header
    save_file({"identity": torch.zeros(3)}, path, metadata={"effigy": json.dumps(content)})


def test_an_avatar_of_a_newer_format(tmp_path):
    make_known_capture(tmp_path)
    write_avatar(tmp_path / "new.effigy", schema=99)
    assert "newer Effigy" in refused(effigy("render", "new.effigy", "ball.capture/track.npz", "frames", cwd=tmp_path))
    assert not (tmp_path / "frames").exists()


def test_an_avatar_whose_head_model_is_missing(tmp_path):
    make_known_capture(tmp_path)
    write_avatar(tmp_path / "orphan.effigy")
    error = refused(effigy("export", "orphan.effigy", "ball.capture/track.npz", "out.ply", cwd=tmp_path))
    assert "head model “a scan”" in error and not (tmp_path / "out.ply").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("track", "nothing.capture"),
        ("train", "nothing.capture", "x.effigy"),
        ("evaluate", "x.effigy", "nothing.capture", "--out", "o"),
        ("render", "x.effigy", "track.npz", "frames"),
        ("export", "x.effigy", "track.npz", "x.ply"),
    ],
)
def test_a_missing_file_is_named(tmp_path, arguments, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and ("nothing.capture" in error or "x.effigy" in error)
    assert everything_below(tmp_path) == set()


# --- the parser, progress, interruption


@pytest.mark.parametrize(("flags", "photometric"), [((), True), (("--landmarks-only",), False)])
def test_frames_are_aligned_to_the_skin_unless_landmarks_only_are_asked_for(tmp_path, monkeypatch, flags, photometric):
    asked = []

    def track_captures(*_, **options):
        asked.append(options["photometric"])
        raise EffigyError("Asked.")

    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    monkeypatch.setattr("backend.tracking.pipeline.track_captures", track_captures)
    make_small_capture(tmp_path, frames=2)
    assert main(("track", str(tmp_path / "ball.capture"), *flags)) == 2
    assert asked == [photometric]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("train", "a"),
        ("train", "a", "b", "--minutes", "-1"),
        ("capture", "a", "b", "--size", "big"),
        ("render", "a", "b", "c", "--format", "gif"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and len(error.splitlines()) == 1 and "--help" in error


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from backend.service.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numba', 'cv2', 'mediapipe', 'av', 'scipy') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_a_stopped_command_ends_with_a_sentence(capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("backend.service.doctor.examine", stopped)
    assert main(["doctor"]) == 130
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "Stopped" in error


def test_a_defect_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("backend.service.doctor.examine", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["doctor"])


def test_a_log_gets_a_line_every_five_seconds_with_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    progress = PlainProgress(log)
    for done in range(81):
        progress.update("Training", done, 200, psnr=21.5)
        now[0] += 0.125
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[-1] == "Training, 80 of 200  8/s  0:15 left  psnr 21.5"


def test_the_bar_shows_stage_figures_and_messages_that_look_like_markup():
    screen = io.StringIO()
    progress = BarProgress(screen)
    progress.update("Reading [/frames]", 3, 10)
    progress.update("Training", 5, 10, psnr=27.25)
    progress.message("[bold] is not markup here")
    progress.close()
    shown = screen.getvalue()
    assert "[bold] is not markup here" in shown and "Training" in shown and "5/10" in shown and "psnr 27.25" in shown


def test_the_doctor_reports_what_is_broken_and_goes_on(monkeypatch):
    from backend.service import doctor

    def broken():
        raise EffigyError("The bundled file assets/open_head.npz is missing.")

    monkeypatch.setattr(doctor, "_open_head", broken)
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert findings["Open head"].state == "broken" and "missing" in findings["Open head"].explanation
    assert findings["Python"].state == "ok" and findings["Disk"].explanation
    assert "Open head" in findings_table(list(findings.values()))
