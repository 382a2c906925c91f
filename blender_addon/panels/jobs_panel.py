"""What goes on in the background: how far each job is, for how long still, what it looks like, and how it ended."""

from __future__ import annotations

from typing import Final

import bpy

from .. import tasks
from ..tasks import BUILDING, Task
from ..worker.jobs import CANCELLED, DONE, FAILED
from . import previews
from .base import EffigyPanel
from .text import region_width, wrapped

ICONS: Final = {DONE: "CHECKMARK", FAILED: "ERROR", CANCELLED: "CANCEL"}
PREVIEW_SCALE: Final = 7.0


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
                if task.said:
                    wrapped(box, task.said, region_width(context))
            else:
                draw_running(box, task, index)
        if any(task.finished for task in tasks.all_tasks()):
            layout.operator("effigy.clear_jobs", icon="TRASH")


def draw_running(layout: bpy.types.UILayout, task: Task, index: int) -> None:
    row = layout.row()
    row.label(text=task.title, icon="SORTTIME", translate=False)
    row.operator("effigy.cancel_job", text="", icon="X").index = index
    if icon := previews.icon_of(task):
        layout.template_icon(icon, scale=PREVIEW_SCALE)
    layout.progress(factor=task.share, text=told(task))
    if task.job and task.job.metrics:
        words = [f"{name} {value:.3g}" for name, value in task.job.metrics.items() if isinstance(value, (int, float))]
        layout.label(text="   ".join(words[:3]), translate=False)
    if task.job and task.job.messages:
        layout.label(text=task.job.messages[-1], translate=False)


def told(task: Task) -> str:
    """`Training 420/1800, 6 min left`."""
    if task.state == "stopping":
        return "Stopping…"
    words = task.stage
    if task.job and task.job.total and task.state != BUILDING:
        words += f" {task.job.done}/{task.job.total}"
    return f"{words}, {task.left} left" if task.left else words


classes = (EFFIGY_PT_jobs,)
