"""Films as they come, imported into scenes of other rates: lips, background and sound at one time, numbered images at
their numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest

SIDE, EVERY = 256, 10
"""Of `film_truth`: pixels, and frames from one event to the next."""
TIMES = [index / 30 for index in range(18)] + [2 + index / 15 for index in range(16)]
"""Of a telephone that takes 30 frames a second, none for 1.4 s, and then 15."""
HAS_SOUND = "aud" in sys.modules
"""Blender 4.2 as a module is built without sound."""
RATES = ((24, 1.0), (25, 1.0), (30, 1.0), (24, 1.001))


def make(*arguments: object) -> None:
    script = Path(__file__).with_name("film_truth.py")
    subprocess.run([os.environ["EFFIGY_BACKEND_PYTHON"], str(script), *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> tuple[Path, Path]:
    """The film and its capture."""
    folder = tmp_path_factory.mktemp("phone")
    make("phone", folder / "phone.mp4", json.dumps(TIMES))
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.effigy.import_video(
        filepath=str(folder / "phone.mp4"), size=SIDE, landmarks_only=True, capture=str(folder / "phone.capture")
    )
    return folder / "phone.mp4", folder / "phone.capture"


def key_times(rig) -> np.ndarray:
    """The scene's frames at which the performance has its keys, through its strip."""
    (strip,) = rig.armature.animation_data.nla_tracks[0].strips
    action = strip.action
    curves = action.fcurves if hasattr(action, "fcurves") else action.layers[0].strips[0].channelbags[0].fcurves
    keys = np.array([point.co.x for point in max(curves, key=lambda curve: len(curve.keyframe_points)).keyframe_points])
    return strip.frame_start + (keys - strip.action_frame_start) * strip.scale


def heard(scene, folder: Path) -> np.ndarray:
    """Seconds after the scene's first frame at which each burst of tone begins."""
    bpy.ops.sound.mixdown(filepath=str(folder / "heard.wav"), container="WAV", codec="PCM", format="S16")
    with wave.open(str(folder / "heard.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()].astype(int)
        loud = np.flatnonzero(np.abs(samples) > 3000) / file.getframerate()
    return loud[np.diff(loud, prepend=-1) > 0.03]


def brightness(capture: Path, index: int) -> float:
    image = bpy.data.images.load(str(capture / "frames" / f"{index:06d}.jpg"))
    pixels = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return float(pixels.reshape(-1, 4)[:, :3].mean())


def shown(scene, capture: Path, events: list[int]) -> list[int]:
    """The scene's frames at which the background first shows each pale image."""
    found, before = [], -1
    user = scene.camera.data.background_images[0].image_user
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        index = min(max(frame - user.frame_start + 1, 1), user.frame_duration) + user.frame_offset
        if index != before and index in events:
            found.append(frame)
        before = index
    return found


def test_lips_background_and_sound_of_a_phones_film_meet_within_a_frame(film, module, tmp_path):
    (clip, capture), times = film, TIMES
    events = list(range(EVERY, len(times), EVERY))
    levels = np.array([brightness(capture, index) for index in range(len(times))])
    assert np.flatnonzero(levels > np.median(levels) + 0.08).tolist() == events
    for fps, base in RATES:
        bpy.ops.wm.read_homefile(use_empty=True)
        scene, rate = bpy.context.scene, fps / base
        scene.render.fps, scene.render.fps_base, scene.frame_start = fps, base, 1001
        scene.frame_end = 1001 + int(np.ceil(times[-1] * rate)) + 2
        bpy.ops.effigy.import_capture(directory=str(capture), set_up=False)
        rig = module("blender_addon.active").need_rig(bpy.context)
        assert module("blender_addon.film_sound").add_sound(scene, clip, 1001, 0.0) == HAS_SOUND
        scene.camera = next(obj for obj in rig.mesh.users_collection[0].objects if obj.type == "CAMERA")
        keys = key_times(rig)
        bursts = 1001 + (heard(scene, tmp_path) if HAS_SOUND else np.array(times)[events]) * rate
        assert len(keys) == len(times) and len(bursts) == len(events)
        late = np.abs(keys - 1001 - np.array(times) * rate).max()
        lips, background = keys[events] - bursts, np.array(shown(scene, capture, events)) - bursts
        print(
            f"{rate:.3f} frames a second: keys {late:.4f} frames beside the film's time; lips {np.abs(lips).max():.3f} "
            f"and background {np.abs(background).max():.3f} frames beside the sound"
        )
        assert late < 0.01 and np.abs(lips).max() < 0.1
        # An image is shown from the first whole frame after its time on.
        assert np.abs(background).max() < 1


def test_numbered_images_are_a_film_at_their_numbers(tmp_path, module):
    """Images 1001 to 1007 without 1005, by the name of one of them, in an untouched and in prepared scenes."""
    make("images", tmp_path / "plate", 1001, 7)
    (tmp_path / "plate" / "shot.1005.png").unlink()
    image, scene = tmp_path / "plate" / "shot.1003.png", bpy.context.scene
    assert module("blender_addon.scene_set_up").is_untouched(scene)
    bpy.ops.effigy.import_video(filepath=str(image), size=128, landmarks_only=True)
    capture = tmp_path / "plate" / "shot.capture"
    assert sorted(path.name for path in (capture / "frames").iterdir()) == [f"{index:06d}.jpg" for index in range(6)]
    assert (scene.frame_start, scene.frame_end, scene.render.fps) == (1001, 1007, 24)
    numbers = [1001, 1002, 1003, 1004, 1006, 1007]
    rig = module("blender_addon.active").need_rig(bpy.context)
    assert key_times(rig) == pytest.approx(numbers, abs=1e-3)
    # Where an image is missing, the one before it stays.
    assert shown(scene, capture, list(range(6))) == numbers
    message = module("blender_addon.tasks").all_tasks()[-1].message
    assert "images 1005 missing" in message and "too little for training" in message
    for span, begins in (((1001, 1240), 1001), ((1003, 1240), 1001), ((1, 100), 1), ((2000, 2100), 2000)):
        scene.frame_start, scene.frame_end = span
        bpy.ops.effigy.import_capture(directory=str(capture), set_up=False)
        assert key_times(module("blender_addon.active").need_rig(bpy.context))[0] == pytest.approx(begins, abs=1e-3)


@pytest.fixture
def asked(module, monkeypatch):
    """What *Import Video* asks the worker for, instead of asking it."""
    importing, requests = module("blender_addon.importing"), []

    def start(title, scene, name, kind, request, set_up):
        requests.append((name, request))
        raise module("blender_addon.errors").EffigyError("Started.")

    monkeypatch.setattr(importing, "_start", start)

    def ask(**options):
        with pytest.raises(RuntimeError, match="Started"):
            bpy.ops.effigy.import_video(**options)
        name, request = requests[-1]
        return name, request.params()

    return ask


def test_what_is_chosen_decides_whether_images_are_a_film(asked, tmp_path):
    for name in ("shot_0009.png", "shot_0010.png", "shot_0011.png", "shot_0020.png", "IMG_7.jpg", "me.png"):
        (tmp_path / name).write_bytes(b"image")
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.001
    name, params = asked(filepath=str(tmp_path / "shot_0010.png"), first=10, turn="270")
    assert name == "shot" and params["video"] == str(tmp_path / "shot_####.png")
    assert (params["rate"], params["first_frame"], params["rotate"]) == ("30000/1001", 10, 270)
    assert Path(params["capture"]).name == "shot.capture"
    for options in ({"filepath": "IMG_7.jpg"}, {"filepath": "me.png"}, {"filepath": "shot_0020.png"}):
        name, params = asked(filepath=str(tmp_path / options["filepath"]))
        assert params["video"] == str(tmp_path / options["filepath"]) and not {"rate", "rotate"} & set(params)
    name, params = asked(filepath=str(tmp_path / "shot_0010.png"), sequence=False)
    assert params["video"] == str(tmp_path / "shot_0010.png") and "rate" not in params
    name, params = asked(filepath=str(tmp_path))
    assert params["video"] == str(tmp_path) and params["rate"] == "30000/1001"
    chosen = [{"name": "shot_0009.png"}, {"name": "shot_0010.png"}]
    name, params = asked(filepath=str(tmp_path / "shot_0009.png"), directory=str(tmp_path), files=chosen)
    assert (params["first_frame"], params["last_frame"]) == (9, 10)
    with pytest.raises(RuntimeError, match="images of one sequence"):
        bpy.ops.effigy.import_video(
            filepath=str(tmp_path / "me.png"),
            directory=str(tmp_path),
            files=[{"name": "me.png"}, {"name": "IMG_7.jpg"}],
        )
