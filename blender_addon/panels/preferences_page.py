"""The page in Blender's preferences: the backend, what it can do here, and the head model."""

from __future__ import annotations

from typing import Final

import bpy

from .. import backend_setup
from ..installation.install import FAILED
from ..preferences import NO_BACKEND
from .text import wrapped

WIDTH: Final = 460.0
LOG_LINES: Final = 8
OPEN_HEAD: Final = (
    "The open head that comes with Effigy: free of licence conditions (CC0), 52 expressions by ARKit's names."
)
ICONS: Final = {"ok": "CHECKMARK", "missing": "INFO", "broken": "ERROR"}


def draw(settings: bpy.types.AddonPreferences, layout: bpy.types.UILayout) -> None:
    box = layout.box()
    box.label(text="Backend", icon="CONSOLE")
    _draw_backend(settings, box)
    box = layout.box()
    box.label(text="Head Model", icon="USER")
    _draw_head(settings, box)


def _draw_backend(settings: bpy.types.AddonPreferences, layout: bpy.types.UILayout) -> None:
    ready, sentence = backend_setup.state()
    if sentence == NO_BACKEND:
        # Who reads this has found the page that the sentence leads to.
        sentence = (
            "Not installed yet: press Install Backend, or show an interpreter that has the packages with Use "
            "This Python."
        )
    wrapped(layout, sentence, WIDTH, "CHECKMARK" if ready else "INFO")
    installation = backend_setup.current()
    if installation and not installation.finished:
        row = layout.row()
        row.progress(factor=installation.share, text=f"{installation.stage} {installation.detail}".strip())
        row.operator("effigy.cancel_installation", text="", icon="X")
        return
    if installation and installation.error:
        column = layout.column()
        column.alert = installation.state == FAILED
        wrapped(column, installation.error, WIDTH, "ERROR")
        if installation.state == FAILED:
            for line in list(installation.lines)[-LOG_LINES:]:
                layout.label(text=line[:110], translate=False)
            layout.label(text=f"The whole log: {installation.log_file}", translate=False)
    if not ready and not settings.backend_python:
        _draw_plan(layout)
    row = layout.row(align=True)
    row.operator("effigy.install_backend", text="Install Again" if ready else "Install Backend", icon="IMPORT")
    row.operator("effigy.use_python", icon="FILE_SCRIPT")
    if settings.backend_python:
        row.operator("effigy.use_own_backend", icon="LOOP_BACK")
    layout.prop(settings, "worker_command")
    if ready:
        _draw_findings(layout)


def _draw_plan(layout: bpy.types.UILayout) -> None:
    """What the click will cost, before it."""
    plan = backend_setup.plan()
    if plan is None:
        layout.label(text="Looking at this machine…")
        return
    for sentence in (*plan.said, plan.shortage):
        if sentence:
            wrapped(layout, sentence, WIDTH)
    if not bpy.app.online_access:
        wrapped(layout, backend_setup.OFFLINE, WIDTH, "INTERNET_OFFLINE")


def _draw_findings(layout: bpy.types.UILayout) -> None:
    row = layout.row()
    row.operator(
        "effigy.examine_backend", text="Examining…" if backend_setup.is_examining() else "Examine", icon="VIEWZOOM"
    )
    rows = backend_setup.findings()
    if not rows:
        return
    table = layout.column(align=True)
    for subject, state, said in rows:
        split = table.split(factor=0.25)
        split.label(text=subject, icon=ICONS.get(state, "DOT"), translate=False)
        wrapped(split, said, WIDTH * 0.75)


def _draw_head(settings: bpy.types.AddonPreferences, layout: bpy.types.UILayout) -> None:
    if settings.head_file:
        wrapped(layout, settings.head_said, WIDTH, "CHECKMARK")
        layout.label(text=settings.head_file, icon="BLANK1", translate=False)
    else:
        wrapped(layout, OPEN_HEAD, WIDTH, "CHECKMARK")
    row = layout.row(align=True)
    row.operator("effigy.choose_head", icon="FILE_FOLDER")
    if settings.head_file:
        row.operator("effigy.use_open_head", icon="LOOP_BACK")
