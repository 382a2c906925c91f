"""The command `speak`: a sound makes a head speak, with lips that meet although the person's own are parted at rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from test_speech import tone, write_wav

from backend.footage.detector import SCORE_NAMES
from backend.formats.track import Track, load_track, save_track
from backend.head.formats import load_head
from backend.head.model import JAW
from backend.progress import SILENT
from backend.retargeting.channels import Recording, track_of
from backend.service.cli import main

PARTED = np.radians(0.9)
"""How far the person's jaw is open at rest."""


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """The track of a person who rests with parted lips."""
    rows = np.zeros((30, len(SCORE_NAMES)))
    rows[:, SCORE_NAMES.index("mouthLowerDownLeft")] = 0.2
    nothing = np.full((30, 3), np.nan), np.full((30, 2, 2), np.nan)
    made = track_of(Recording(np.arange(30) / 30, Fraction(30), rows, *nothing), load_head(), tmp_path, SILENT)
    made.rotations[:, JAW, 0] = PARTED
    save_track(replace(made, flags=np.zeros_like(made.flags)), tmp_path / "person.npz")
    return tmp_path / "person.npz"


def spoken(person: Path, *options: str) -> Track:
    folder = person.parent
    line = write_wav(folder / "line.wav", tone(2))
    (folder / "line.tsv").write_text("0.00\tX\n0.50\tD\n1.00\tA\n1.20\tD\n1.70\tX\n")
    words = ["speak", str(line), str(person), str(folder / "out.npz"), "--phones", str(folder / "line.tsv"), *options]
    assert main(words) == 0
    return load_track(folder / "out.npz")


def test_lips_meet_although_they_are_parted_at_rest_and_rest_as_the_persons_do(person: Path) -> None:
    made = spoken(person, "--fps", "50")
    jaw = made.rotations[:, JAW, 0]
    lower = made.expression[:, load_head().expression_names.index("mouthLowerDownLeft")]
    assert made.frame_count == 101 and made.fps == 50
    assert jaw[5] == pytest.approx(PARTED, abs=1e-3) and lower[5] == pytest.approx(0.2, abs=1e-2)
    assert jaw[37] > PARTED + np.radians(7) and lower[37] > 0.25
    assert jaw[53] == pytest.approx(0, abs=1e-4) and lower[53] == pytest.approx(0, abs=1e-4)


def test_intensity_opens_the_mouth_wider_and_leaves_the_contact(person: Path) -> None:
    whole, half = spoken(person, "--fps", "50"), spoken(person, "--fps", "50", "--intensity", "0.5")
    opened = [made.rotations[37, JAW, 0] - PARTED for made in (whole, half)]
    assert opened[1] == pytest.approx(opened[0] / 2, rel=0.05)
    assert np.allclose(whole.expression[53], half.expression[53], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "hello"], "either the text or a phone table"),
        (["--intensity", "4"], "intensity of lip sync lies between 0 and 3"),
    ],
)
def test_what_cannot_be_is_refused_by_a_sentence(
    person: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        spoken(person, *options)
    assert message in capsys.readouterr().err


def curves(folder: Path, form: str) -> Path:
    """Two seconds at 30 frames a second, open from 0.5 to 1 second and from 1.2 to 1.7, as Audio2Face writes them."""
    times = np.arange(61) / 30
    opened = np.where((times >= 0.5) & (times < 1.0) | (times >= 1.2) & (times < 1.7), 0.6, 0.0)
    rows = np.zeros((61, len(SCORE_NAMES)))
    rows[:, SCORE_NAMES.index("jawOpen")], rows[:, SCORE_NAMES.index("browInnerUp")] = opened, 0.3
    path = folder / f"animation_frames.{form}"
    if form == "json":
        path.write_text(
            json.dumps({"exportFps": 30.0, "numFrames": 61, "facsNames": list(SCORE_NAMES), "weightMat": rows.tolist()})
        )
        return path
    # As pandas writes them for NVIDIA's client: an index without a name, times in seconds, a prefix, further columns.
    names = [f"blendShapes.{name[0].upper()}{name[1:]}" for name in SCORE_NAMES]
    lines = [",".join(["", "timeCode", *names, "blendShapes.HeadRoll", "blendShapes.TongueTipUp"])]
    lines += [",".join(map(str, [row, times[row], *rows[row], 0.0, 0.1])) for row in range(61)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("form", ["json", "csv"])
def test_curves_of_audio2face_open_the_mouth_when_they_say_by_as_much_as_is_wanted(person: Path, form: str) -> None:
    made = []
    for options in ([], ["--intensity", "0.5"], ["--smoothing", "0.1"]):
        out = person.parent / "out.npz"
        words = ["speak", str(curves(person.parent, form)), str(person), str(out), "--fps", "60", *options]
        assert main(words) == 0
        made.append(load_track(out))
    whole, half, calm = (track.rotations[:, JAW, 0] - PARTED for track in made)
    assert made[0].frame_count == 121 and made[0].fps == 60
    assert (
        whole[45] > np.radians(5)
        and whole[10] == pytest.approx(0, abs=1e-3)
        and whole[66] == pytest.approx(0, abs=1e-3)
    )
    assert half[45] == pytest.approx(whole[45] / 2, rel=0.05)
    assert np.abs(np.diff(calm)).max() < 0.5 * np.abs(np.diff(whole)).max()
    assert np.ptp(made[0].head_to_camera, axis=0).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (["--text", "hello"], lambda text: text, "holds a mouth's curves already"),
        ([], lambda text: text[: len(text) // 2], "JSON cannot be read"),
        ([], lambda text: text.replace("30.0", "1e99"), "frame rate are no numbers"),
        ([], lambda text: text.replace("0.6", "60"), "percents"),
        ([], lambda text: text.replace("facsNames", "names"), "is not a performance"),
    ],
)
def test_curves_that_cannot_be_followed_are_refused_by_a_sentence(
    person: Path, options: list[str], change: Callable[[str], str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = curves(person.parent, "json")
    path.write_text(change(path.read_text()))
    assert main(["speak", str(path), str(person), str(person.parent / "out.npz"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") <= 2, error
