"""The panel Jobs: the progress, the preview and the result of work in the background."""

from __future__ import annotations

from typing import Final

import bpy

from .. import tasks
from ..tasks import BUILDING, Task
from ..worker.jobs import CANCELLED, DONE, FAILED
from ..wrapped_text import region_width, wrapped
from . import previews
from .base import EffigyPanel

ICONS: Final = {DONE: "CHECKMARK", FAILED: "ERROR", CANCELLED: "CANCEL"}
PREVIEW_SCALE: Final = 7.0
MAX_METRICS: Final = 3
METRICS: Final = {"psnr": "Similarity to the footage: {:.3g} dB", "validation_psnr": "On unseen frames: {:.3g} dB"}
"""How a job's metric is written; others are written by their name and value."""


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
                draw_running(box, task, index)
        if any(task.finished for task in tasks.all_tasks()):
            layout.operator("effigy.clear_jobs", icon="TRASH")


def draw_running(layout: bpy.types.UILayout, task: Task, index: int) -> None:
    """A running task; `index` is its position in `tasks.all_tasks()`."""
    row = layout.row()
    row.label(text=task.title, icon="SORTTIME", translate=False)
    row.operator("effigy.cancel_job", text="", icon="X").index = index
    if icon := previews.icon_of(task):
        layout.template_icon(icon, scale=PREVIEW_SCALE)
    layout.progress(factor=task.fraction, text=progress_text(task))
    if task.job and task.job.metrics:
        texts = [
            metric_text(name, value) for name, value in task.job.metrics.items() if isinstance(value, (int, float))
        ]
        layout.label(text="   ".join(texts[:MAX_METRICS]), translate=False)
    if task.job and task.job.messages:
        layout.label(text=task.job.messages[-1], translate=False)


def progress_text(task: Task) -> str:
    """`Training, 420 of 1800, 6 min left`; `Sending footage to the worker, 120 of 480 MB, 20 s left`."""
    if task.state == "stopping":
        return "Stopping…"
    parts = [task.stage]
    if task.job and task.job.total and task.state != BUILDING:
        parts.append(f"{task.job.done} of {task.job.total} {task.job.unit}".rstrip())
    if task.time_left:
        parts.append(f"{task.time_left} left")
    return ", ".join(parts)


def metric_text(name: str, value: float) -> str:
    return METRICS[name].format(value) if name in METRICS else f"{name} {value:.3g}"


classes = (EFFIGY_PT_jobs,)
