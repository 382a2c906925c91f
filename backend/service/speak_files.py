"""Lip sync between files: a sound, or the curves that another program has made of it, makes the head of a capture, a
track or an avatar speak.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.track import Track, save_track
from ..head.formats import load_head
from ..head.model import JAW, HeadModel
from ..progress import Progress
from ..retargeting.channels import Recording, track_of
from ..retargeting.curves import SUFFIXES, read_performance
from ..retargeting.retarget import MAX_INTENSITY, MAX_SMOOTHING, Neutral, neutral_of, retarget
from ..speech.articulation import Mouth, articulate
from ..speech.phone_tables import read_phone_table
from ..speech.recogniser import recognise
from ..speech.sound import read_sound
from .requests import SpeakRequest
from .retarget_files import open_target

PARTS_LIPS = ("mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthShrugUpper")
"""Channels by which a person's lips are parted at rest."""


def speak_files(request: SpeakRequest, progress: Progress) -> Track:
    """Write the track of a head that speaks to `request.out`, and return it."""
    if request.out.suffix.lower() != ".npz":
        raise EffigyError(f"Lip sync writes a track: give a name that ends in .npz, not {request.out.name}.")
    for name, value, most in (
        ("intensity", request.intensity, MAX_INTENSITY),
        ("smoothing", request.smoothing, MAX_SMOOTHING),
    ):
        if value > most:
            raise EffigyError(f"The {name} of lip sync lies between 0 and {most:g}, not at {value:g}.")
    text = (request.text or "").strip()
    if request.phones and text:
        raise EffigyError("Give either the text or a phone table, not both: a table has the times of its own phones.")
    target, model = open_target(request.target)
    rate = request.fps or target.fps
    if request.sound.suffix.lower() in SUFFIXES:
        made = _by_curves(request, target, model, rate, progress)
        save_track(made, request.out)
        return made
    table = read_phone_table(request.phones, progress, float(rate)) if request.phones else None
    progress.update("speech", 0, 1)
    sound = read_sound(request.sound, progress)
    phones = table or recognise(sound, text, progress)
    if not phones.phones:
        progress.message(f"No speech was found in {request.sound.name}: the mouth stays at rest.")
    mouth = articulate(
        phones, sound, float(rate), intensity=request.intensity, smoothing=request.smoothing, progress=progress
    )
    speaker = load_head()
    count = len(mouth.channels)
    nothing = np.full((count, 3), np.nan), np.full((count, 2, 2), np.nan)
    recording = Recording(np.arange(count) / float(rate), rate, mouth.channels, *nothing)
    performance = track_of(recording, speaker, request.sound, progress)
    # A silent mouth is all zeros, which a recording's reader takes for a lost face.
    performance = replace(performance, flags=np.zeros_like(performance.flags))
    made = retarget(performance, speaker, target, model, motion=0.0, performer_neutral=_resting(speaker))
    made = with_closed_lips(made, neutral_of(target, model), model, mouth)
    save_track(made, request.out)
    return made


def _by_curves(request: SpeakRequest, target: Track, model: HeadModel, rate: Fraction, progress: Progress) -> Track:
    """The track of a head that follows ARKit's channels, which another program has made of a sound. Zero is the
    person's resting face, and the head stays still.
    """
    if request.phones or (request.text or "").strip():
        raise EffigyError(
            f"{request.sound.name} holds a mouth's curves already: leave text and phone table out, or give the sound."
        )
    speaker = load_head()
    progress.update("curves", 0, 1)
    performance = read_performance(request.sound, speaker, progress)
    # A silent mouth is all zeros, which a recording's reader takes for a lost face.
    performance = replace(performance, flags=np.zeros_like(performance.flags))
    return retarget(
        performance,
        speaker,
        target,
        model,
        intensity=request.intensity,
        smoothing=request.smoothing,
        motion=0.0,
        fps=rate,
        performer_neutral=_resting(speaker),
    )


def _resting(model: HeadModel) -> Neutral:
    return Neutral(np.zeros(model.expression_basis.shape[2]), np.zeros((5, 3)), np.diag((1.0, -1.0, -1.0, 1.0)))


def with_closed_lips(track: Track, neutral: Neutral, model: HeadModel, mouth: Mouth) -> Track:
    """The track with lips that meet where they must, although the person's own lips are parted at rest.

    Where lips or teeth touch, the jaw loses what it is open at rest. Where the lips touch each other, the channels that
    part them lose what the resting face has of them.
    """
    expression, rotations = track.expression.copy(), track.rotations.copy()
    rotations[:, JAW, 0] -= mouth.touching * max(0.0, float(neutral.rotations[JAW, 0]))
    for column, name in enumerate(model.expression_names):
        if name in SCORE_NAMES and name.startswith(PARTS_LIPS):
            expression[:, column] -= mouth.closed * max(0.0, float(neutral.expression[column]))
    return track.posed(expression=expression, rotations=rotations)
