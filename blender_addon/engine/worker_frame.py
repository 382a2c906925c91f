"""The image of avatars that the worker renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..grade import Grade, graded_picture
from ..worker import session
from .camera import WorkerCamera
from .cancellable_call import call_unless_cancelled
from .rendered_frame import RenderedFrame
from .subjects import RenderSubjects, Subject


def render(
    visible: RenderSubjects,
    view: WorkerCamera,
    enhanced: bool,
    is_cancelled: Callable[[], bool],
    labels: Sequence[np.ndarray] = (),
    parts: int = 0,
) -> RenderedFrame | None:
    """The avatars' image, graded; None if the artist has cancelled. `labels` and `parts`: as in `played_frame.draw`.
    Raises an `EffigyError` as the worker does.
    """
    subjects, wanted = visible.subjects, parts
    if len({subject.grade for subject in subjects}) > 1 and not parts:
        # Each avatar's share of a pixel is asked for, as a part of its own.
        labels = [np.full(_vertex_count(subject), number) for number, subject in enumerate(subjects)]
        parts = len(subjects)
    params = {
        "subjects": [subject.message() for subject in subjects],
        "camera": view.message([subject.pose.root for subject in subjects]),
        "enhanced": enhanced,
    }
    if parts:
        params["parts"] = parts
        for message, label in zip(params["subjects"], labels, strict=True):
            message["labels"] = label
    answer = call_unless_cancelled(session.client(), "avatar.render", params, is_cancelled)
    return None if answer is None else _graded(RenderedFrame.from_answer(answer), subjects, labels, wanted)


def _graded(
    frame: RenderedFrame, subjects: Sequence[Subject], labels: Sequence[np.ndarray], wanted: int
) -> RenderedFrame:
    """A frame with the subjects' grades, and the first `wanted` of its parts."""
    if len({subject.grade for subject in subjects}) == 1:
        color = graded_picture(frame.color, frame.alpha, [subjects[0].grade])
    else:
        grades = [Grade()] * frame.parts.shape[2]
        for subject, label in zip(subjects, labels, strict=True):
            for part in np.unique(label):
                grades[part] = subject.grade
        color = graded_picture(frame.color, frame.alpha, grades, frame.parts)
    return replace(frame, color=color, parts=frame.parts[..., :wanted])


def _vertex_count(subject: Subject) -> int:
    return 0 if subject.mesh is None else len(subject.mesh.data.vertices)
