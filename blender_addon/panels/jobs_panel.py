"""The panel Jobs: the progress, the preview and the result of work in the background."""

from __future__ import annotations

from typing import Final

import bpy

from .. import tasks
from ..tasks import BUILDING, Task
from ..worker.jobs import CANCELLED, DONE, FAILED, STOPPING
from ..wrapped_text import region_width, wrapped
from . import previews
from .base import EffigyPanel

ICONS: Final = {DONE: "CHECKMARK", FAILED: "ERROR", CANCELLED: "CANCEL"}
PREVIEW_SCALE: Final = 7.0
METRICS: Final = {"psnr": "Similarity to the footage: {:.3g} dB", "validation_psnr": "On unseen frames: {:.3g} dB"}
"""The figures of a job that an artist knows, and how each is written."""


class EFFIGY_PT_jobs(EffigyPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_jobs"
    bl_label = "Jobs"
    bl_order = 2

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return bool(tasks.all_tasks())

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        for index, task in reversed(list(enumerate(tasks.all_tasks()))):
            box = layout.box()
            if task.finished:
                box.label(text=task.title, icon=ICONS[task.state], translate=False)
                if task.message:
                    wrapped(box, task.message, region_width(context))
            else:
                draw_running(box, context, task, index)
        if any(task.finished for task in tasks.all_tasks()):
            layout.operator("effigy.clear_jobs", icon="TRASH")


def draw_running(layout: bpy.types.UILayout, context: bpy.types.Context, task: Task, index: int) -> None:
    """A running task; `index` is its position in `tasks.all_tasks()`."""
    row = layout.row()
    row.label(text=task.title, icon="SORTTIME", translate=False)
    row.operator("effigy.cancel_job", text="", icon="X").index = index
    if icon := previews.icon_of(task):
        layout.template_icon(icon, scale=PREVIEW_SCALE)
    layout.progress(factor=task.fraction, text=progress_text(task))
    if task.step:
        wrapped(layout, task.step, region_width(context))
    if details := details_of(task):
        heading, body = layout.panel(f"effigy_job_{task.number}", default_closed=True)
        heading.label(text="Details")
        for text in details if body else ():
            wrapped(body, text, region_width(context))


def progress_text(task: Task) -> str:
    """`38 %, 2 min left`; where the whole job is not known `Training, 420 of 1800, 6 min left`, `Sending footage to the
    worker, 120 of 480 MB, 20 s left`.
    """
    if task.state == STOPPING:
        return "Stopping…"
    whole = task.step or task.job is None
    parts = [f"{task.fraction:.0%}".replace("%", " %")] if whole else [task.stage, *_count_of(task)]
    if task.time_left:
        parts.append(f"{task.time_left} left")
    return ", ".join(parts)


def details_of(task: Task) -> list[str]:
    """What a running job says beyond its bar: the stage with its count, the figures, and the newest message."""
    if task.job is None or task.state == BUILDING:
        return []
    stage = [", ".join([task.stage, *_count_of(task)])] if task.step else []
    figures = [text.format(task.job.metrics[name]) for name, text in METRICS.items() if _known(task, name)]
    return [*stage, *figures, *task.job.messages[-1:]]


def _known(task: Task, name: str) -> bool:
    return isinstance(task.job.metrics.get(name), (int, float))


def _count_of(task: Task) -> list[str]:
    """`420 of 1800`, of the stage of a task; empty where nothing is counted."""
    if task.job is None or task.job.total <= 1 or task.state == BUILDING:
        return []
    return [f"{task.job.done} of {task.job.total} {task.job.unit}".rstrip()]


classes = (EFFIGY_PT_jobs,)
