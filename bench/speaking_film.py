"""A film with sound in which an avatar says what it was not filmed with.

    python -m bench.speaking_film AVATAR CAPTURE OUT.mp4 [--sound FILE] [--text FILE] [--size N]

The mouth comes from `speak`; brows, lids, gaze and the head's motion from the tracked capture, played forward and back,
as with the strips that *Lip Sync* adds in Blender. The sound is by default the ten seconds that the person of the demo
says. OUT.png shows a frame of every half second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from assets.derive.speech import SPEECH
from backend.avatar.avatar import load_avatar
from backend.avatar.render import render_track
from backend.formats.track import Track, load_track
from backend.head.model import JAW
from backend.service.requests import SpeakRequest
from backend.service.speak_files import speak_files
from backend.service.terminal import PlainProgress

MOUTH = ("mouth", "jaw", "tongue")
"""What the names of the channels begin with that speech moves."""


def over_performance(spoken: Track, tracked: Track, names: tuple[str, ...]) -> Track:
    """The spoken mouth on the tracked performance, which is played forward and back at the spoken track's rate."""
    steps = np.arange(spoken.frame_count) * float(tracked.fps / spoken.fps)
    last = tracked.frame_count - 1
    frames = np.rint(np.abs((steps + last) % (2 * last) - last)).astype(int)
    mouth = np.array([name.startswith(MOUTH) for name in names])
    expression, rotations = tracked.expression[frames].copy(), tracked.rotations[frames].copy()
    expression[:, mouth], rotations[:, JAW] = spoken.expression[:, mouth], spoken.rotations[:, JAW]
    return spoken.posed(expression=expression, rotations=rotations, head_to_camera=tracked.head_to_camera[frames])


def add_sound(film: Path, sound: Path, out: Path) -> None:
    """Copy the pictures of `film` beside the sound, as AAC."""
    with av.open(str(film)) as pictures, av.open(str(sound)) as heard, av.open(str(out), "w") as made:
        video = made.add_stream_from_template(pictures.streams.video[0])
        audio = made.add_stream("aac", rate=heard.streams.audio[0].rate)
        for packet in pictures.demux(pictures.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                made.mux(packet)
        for frame in heard.decode(audio=0):
            made.mux(audio.encode(frame))
        made.mux(audio.encode(None))


def write_sheet(film: Path, out: Path) -> None:
    """A frame of every half second, in rows of seven."""
    with av.open(str(film)) as file:
        rate = float(file.streams.video[0].average_rate)
        images = [
            frame.to_ndarray(format="bgr24")
            for index, frame in enumerate(file.decode(video=0))
            if index % round(rate / 2) == 0
        ]
    images += [np.full_like(images[0], 255)] * (-len(images) % 7)
    cv2.imwrite(str(out), np.concatenate([np.concatenate(images[at : at + 7], 1) for at in range(0, len(images), 7)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("capture", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sound", type=Path, default=SPEECH / "clip.flac")
    parser.add_argument("--text", type=Path, default=SPEECH / "clip.txt", help="a file; what is said")
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    progress = PlainProgress(sys.stderr)
    avatar = load_avatar(arguments.avatar)
    with tempfile.TemporaryDirectory() as folder:
        request = SpeakRequest(
            arguments.sound, arguments.capture, Path(folder) / "spoken.npz", text=arguments.text.read_text("utf-8")
        )
        spoken = speak_files(request, progress)
        tracked = load_track(arguments.capture / "track.npz")
        track = over_performance(spoken, tracked, tuple(avatar.head_model.expression_names))
        film = Path(folder) / "film.mp4"
        track = replace(track, identity=tracked.identity)
        frames = render_track(
            avatar, track, film, size=arguments.size, fmt="mp4", background="#3a3f45", progress=progress
        )
        add_sound(film, arguments.sound, arguments.out)
    write_sheet(arguments.out, arguments.out.with_suffix(".png"))
    print(f"{arguments.out}: {frames} frames, {frames / float(track.fps):.1f} s with sound.")


if __name__ == "__main__":
    main()
