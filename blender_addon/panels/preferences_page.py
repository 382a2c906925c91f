"""Effigy's page in Blender's preferences: the backend, what it can do on this machine, and the head model."""

from __future__ import annotations

from typing import Final

import bpy

from .. import backend_setup, preferences
from ..installation.install import FAILED, Installation
from ..preferences import NO_BACKEND, PACKAGE, EffigySettings, EffigySharedFolder
from ..wrapped_text import wrapped

WIDTH: Final = 460.0
"""Pixels at interface scale 1 for a line of text."""
LOG_LINES: Final = 8
"""Lines of the installation's log that are shown after a failure."""
LOG_LINE_LENGTH: Final = 110
OPEN_HEAD: Final = (
    "The open head that comes with Effigy: free to use for anything (CC0), 52 expressions with ARKit's names."
)
NOT_INSTALLED: Final = (
    "Not installed yet: press Install Backend. If you have a Python with Effigy's packages, press Use This Python."
)
NOTHING_FITS: Final = (
    "The backend cannot be installed here. If you have a Python with Effigy's packages, press Use This Python."
)
SHARED_FOLDERS: Final = (
    "Files are sent to the worker's machine, and its results are fetched. If both machines reach the same folder, such "
    "as a studio's server, enter its path on either side: files in it stay where they are."
)
ICONS: Final = {"ok": "CHECKMARK", "missing": "INFO", "broken": "ERROR"}
"""Icon by the state of a finding."""


class EffigyPreferences(EffigySettings, bpy.types.AddonPreferences):
    bl_idname = PACKAGE

    def draw(self, context: bpy.types.Context) -> None:
        draw(self, self.layout)


def draw(settings: EffigySettings, layout: bpy.types.UILayout) -> None:
    box = layout.box()
    box.label(text="Backend", icon="CONSOLE")
    _draw_backend(settings, box)
    box = layout.box()
    box.label(text="Head Model", icon="USER")
    _draw_head(settings, box)


def _draw_backend(settings: EffigySettings, layout: bpy.types.UILayout) -> None:
    ready, message = backend_setup.state()
    installation = backend_setup.current()
    if installation and not installation.finished:
        if ready:
            wrapped(layout, message, WIDTH, "CHECKMARK")
        row = layout.row()
        row.progress(factor=installation.share, text=": ".join(filter(None, (installation.stage, installation.detail))))
        row.operator("effigy.cancel_installation", text="", icon="X")
        return
    refusal = None if ready else backend_setup.refusal()
    if message == NO_BACKEND:
        # The usual message explains how to open this page.
        message = NOTHING_FITS if refusal else NOT_INSTALLED
    wrapped(layout, message, WIDTH, "CHECKMARK" if ready else "INFO")
    if installation and installation.error:
        column = layout.column()
        column.alert = installation.state == FAILED
        wrapped(column, installation.error, WIDTH, "ERROR")
        if installation.state == FAILED:
            _draw_log(installation, layout)
    elif installation:
        for note in installation.notes:
            wrapped(layout.column(), note, WIDTH)
    if not ready and not settings.backend_python:
        _draw_plan(layout)
    row = layout.row(align=True)
    button = row.row(align=True)
    button.enabled = not refusal
    again = preferences.environments().current() is not None
    button.operator("effigy.install_backend", text="Install Again" if again else "Install Backend", icon="IMPORT")
    row.operator("effigy.use_python", icon="FILE_SCRIPT")
    if settings.backend_python:
        row.operator("effigy.use_own_backend", icon="LOOP_BACK")
    layout.prop(settings, "worker_command")
    if settings.worker_command:
        _draw_shared_folders(settings, layout.box())
    if ready:
        _draw_findings(layout)


def _draw_log(installation: Installation, layout: bpy.types.UILayout) -> None:
    """The end of a failed installation's log, close together, so that the buttons below stay in sight."""
    column = layout.column(align=True)
    column.scale_y = 0.6
    for line in list(installation.lines)[-LOG_LINES:]:
        column.label(text=line[:LOG_LINE_LENGTH], translate=False)
    layout.label(text=f"Full log: {installation.log_file}", translate=False)


def _draw_shared_folders(settings: EffigySettings, layout: bpy.types.UILayout) -> None:
    layout.label(text="Shared Folders", icon="NETWORK_DRIVE")
    wrapped(layout, SHARED_FOLDERS, WIDTH)
    if len(settings.shared):
        heads = layout.row()
        heads.label(text="On This Machine")
        heads.label(text="On the Worker's Machine")
    for index, row in enumerate(settings.shared):
        line = layout.row(align=True)
        line.prop(row, "local", text="")
        line.label(text="", icon="FORWARD")
        line.prop(row, "remote", text="")
        line.operator("effigy.remove_shared_folder", text="", icon="X").index = index
    layout.operator("effigy.add_shared_folder", icon="ADD")


def _draw_plan(layout: bpy.types.UILayout) -> None:
    """What Install Backend will download and how much disk it needs, before it is pressed."""
    plan = backend_setup.plan()
    if plan is None:
        layout.label(text="Checking this machine…")
        return
    if plan.refusal:
        wrapped(layout, plan.refusal, WIDTH, "ERROR")
        return
    for message in (*plan.messages, plan.shortage):
        if message:
            wrapped(layout, message, WIDTH)
    if not bpy.app.online_access:
        wrapped(layout, backend_setup.OFFLINE, WIDTH, "INTERNET_OFFLINE")


def _draw_findings(layout: bpy.types.UILayout) -> None:
    button = layout.row()
    button.operator(
        "effigy.examine_backend", text="Examining…" if backend_setup.is_examining() else "Examine", icon="VIEWZOOM"
    )
    rows = backend_setup.findings()
    if not rows:
        return
    table = layout.column(align=True)
    for row in rows:
        split = table.split(factor=0.25)
        split.label(text=row.subject, icon=ICONS.get(row.state, "DOT"), translate=False)
        wrapped(split, row.message, WIDTH * 0.75)


def _draw_head(settings: EffigySettings, layout: bpy.types.UILayout) -> None:
    if settings.head_file:
        wrapped(layout, settings.head_said, WIDTH, "CHECKMARK")
        layout.label(text=settings.head_file, icon="BLANK1", translate=False)
    else:
        wrapped(layout, OPEN_HEAD, WIDTH, "CHECKMARK")
    row = layout.row(align=True)
    row.operator("effigy.choose_head", icon="FILE_FOLDER")
    if settings.head_file:
        row.operator("effigy.use_open_head", icon="LOOP_BACK")


classes = (EffigySharedFolder, EffigyPreferences)
