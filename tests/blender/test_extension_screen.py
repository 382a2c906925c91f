"""What an artist sees: every panel draws in every state, and operators that cannot run are disabled or say why."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from panel_texts import PACKAGE, Layout, drawn, panels, texts_of


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    module("blender_addon.tasks").clear_finished()
    return module("blender_addon.active").need_rig(bpy.context)


def test_an_empty_scene_offers_to_import_and_nothing_that_needs_a_rig():
    words = drawn()
    assert "Import Video" in words and "Train Avatar" not in words and "Reset" not in words


def test_without_a_backend_the_tab_says_what_to_do(monkeypatch):
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    words = drawn("EFFIGY_PT_import")
    assert "not installed yet" in words and "Open Preferences" in words


def test_a_rig_brings_its_sliders_grouped_by_region(rig):
    words = drawn()
    for word in (
        "Train Avatar",
        "Mouth Smile Left",
        "Brow Inner Up",
        "Jaw Bone",
        "Nod",
        "Starter Expression",
        "Frame",
        "Animation",
    ):
        assert word in words
    mouth = drawn("EFFIGY_PT_sliders_mouth")
    assert "Mouth Smile Left" in mouth and "Brow" not in mouth
    buttons = texts_of("EFFIGY_PT_sliders")
    for name in rig.expression_names:
        assert buttons.count(_spoken(name)) == 1


def test_a_narrow_sidebar_keeps_the_sides_of_the_sliders(rig, module):
    label_of = module("blender_addon.panels.sliders_panel").label_of
    assert label_of("mouthSmileLeft") == "Mouth Smile Left"
    short = [label_of(name, narrow=True) for name in rig.expression_names if name.startswith("mouth")]
    assert "Smile Left" in short and "Mouth Left" in short and len(set(short)) == len(short)


def test_the_panels_in_sliders_have_an_order_of_their_own_and_face_controls_come_first():
    inner = [panel for panel in panels() if getattr(panel, "bl_parent_id", "") == "EFFIGY_PT_sliders"]
    inner.sort(key=lambda panel: panel.bl_order)
    assert inner[0].__name__ == "EFFIGY_PT_controls" and len({panel.bl_order for panel in inner}) == len(inner) > 5


def _spoken(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name[:1].upper() + name[1:])


def test_the_train_panel_shows_the_presets_values_until_they_are_overridden(rig, module):
    settings = rig.armature.effigy
    for name, preset in module("backend.training.presets").PRESETS.items():
        settings.preset = name
        words = drawn("EFFIGY_PT_train")
        assert f"{preset.size} px (preset)" in words and f"{preset.steps:,} steps (preset)" in words
    settings.preset = "draft"
    settings.own_size = settings.own_minutes = True
    assert (settings.size, settings.minutes) == (256, 30) and "(preset)" not in drawn("EFFIGY_PT_train")
    settings.own_size = settings.own_minutes = False
    assert (settings.size, settings.minutes) == (0, 0)


def test_a_renamed_shape_key_and_a_deleted_bone_are_named_in_the_panel(rig):
    rig.key_blocks["mouthSmileLeft"].name = "grin"
    assert "its shape key is gone" in drawn("EFFIGY_PT_sliders_mouth")


def test_a_lost_avatar_shows_relink(rig, tmp_path):
    rig.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    assert "is not at" in drawn("EFFIGY_PT_import") and "Relink Avatar" in drawn("EFFIGY_PT_import")


def test_an_avatar_can_be_baked_and_exported_from_the_tab(rig, tmp_path):
    assert "Bake Playback" not in drawn()
    rig.armature.effigy.avatar = str(tmp_path / "ann.effigy")
    words = drawn("EFFIGY_PT_playback")
    assert "Bake Playback" in words and "Limit (MB)" in words and "Export Splats" in words


def test_jobs_show_their_progress_preview_and_result(rig, module, demo_clip, tmp_path):
    tasks, importing, previews = (module(f"blender_addon.{name}") for name in ("tasks", "importing", "panels.previews"))
    assert not any(panel.poll(bpy.context) for panel in panels() if panel.__name__ == "EFFIGY_PT_jobs")
    task = importing.import_video(bpy.context.scene, demo_clip, capture=tmp_path / "x.capture")
    messages = module("blender_addon.worker.messages")
    task.job.on_event(messages.JobProgress("Training", 30, 120, eta=400.0, rate=2.0, metrics={"loss": 0.12345}))
    task.job.on_event(messages.JobPreview(np.full((500, 500, 3), 128, np.uint8)))
    words = drawn("EFFIGY_PT_jobs")
    # A figure that means nothing to an artist is not shown.
    assert "Training, 30 of 120, 7 min left" in words and "0.123" not in words
    header = SimpleNamespace(layout=Layout())
    module("blender_addon.panels.status_bar").draw(header, bpy.context)
    assert "Training, 30 of 120" in header.layout.words
    whole = messages.WholeJob(0.38, 0.4, 130.0, 3, 7, "Shape of the head")
    task.job.on_event(messages.JobProgress("Fitting the shape", 9, 14, metrics={"psnr": 21.0}, whole=whole))
    words = drawn("EFFIGY_PT_jobs")
    assert "34 %, 2 min left" in words and "Step 3 of 8: Shape of the head" in words
    assert "Fitting the shape, 9 of 14" in words and "Similarity to the footage: 21 dB" in words
    icon = previews._icons.collection[previews.name_of(task)]
    # Without a window Blender gives icons no number, so the icon's pixels are checked instead.
    assert 100 < max(icon.image_size) <= previews.MAX_SIDE
    assert list(icon.image_pixels_float[:4]) == pytest.approx([128 / 255] * 3 + [1], abs=0.01)
    task.cancel()
    tasks.wait(task, 60)
    assert task.message in " ".join(drawn("EFFIGY_PT_jobs").split()) or "stopped" in drawn("EFFIGY_PT_jobs").lower()
    bpy.ops.effigy.clear_jobs()
    assert not tasks.all_tasks() and not previews._icons.shown


def test_the_switch_of_the_shoulders_is_there_where_the_avatar_has_some(demo_capture, demo_avatar, module):
    live = module("blender_addon.viewport.live")
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    bpy.ops.effigy.add_avatar(filepath=str(demo_avatar))
    rig = module("blender_addon.active").need_rig(bpy.context)
    assert "Shoulders" not in texts_of("EFFIGY_PT_view"), "no view has looked for the file yet"
    shown = module("blender_addon.viewport.avatar_state").AvatarState()
    shown.file = (), demo_avatar
    live.state.avatars[rig.uid] = shown
    assert "Shoulders" in texts_of("EFFIGY_PT_view")
    shown.file = (), demo_avatar.with_name("gone.effigy")
    assert "Shoulders" not in texts_of("EFFIGY_PT_view")


def test_the_preferences_draw_with_and_without_a_backend(module, monkeypatch):
    page = module("blender_addon.panels.preferences_page")
    settings = module("blender_addon.preferences").get()
    layout = Layout()
    page.draw(settings, layout)
    assert "Examine" in layout.words and "open head" in layout.words
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    setup = module("blender_addon.backend_setup")
    setup.keep_machine(setup.this_machine())
    layout = Layout()
    page.draw(settings, layout)
    assert (
        "Not installed yet" in layout.words
        and "GB are downloaded" in layout.words
        and "Install Backend" in layout.words
    )


def test_a_machine_for_which_nothing_fits_is_told_so_and_not_to_install(module, monkeypatch):
    setup, machine = module("blender_addon.backend_setup"), module("blender_addon.installation.machine")
    page, settings = module("blender_addon.panels.preferences_page"), module("blender_addon.preferences").get()
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    monkeypatch.setattr(setup, "_setup", setup._Setup())
    setup.keep_machine(machine.Machine("Linux", (3, 14), processor="x86_64", version=(2, 43)))
    layout = Layout()
    page.draw(settings, layout)
    words = " ".join(layout.words.split())
    assert "contains Python 3.14" in words and "cannot be installed here" in words
    assert "press Install Backend" not in words and "Allow Online Access" not in words
    # The button says the reason, and shows no dialog that asks for a confirmation.
    said = []
    pressed = SimpleNamespace(report=lambda kind, text: said.append(text))
    operator = module("operators.install_backend").EFFIGY_OT_install_backend
    assert operator.invoke(pressed, bpy.context, None) == {"CANCELLED"} and "Python 3.14" in said[0]


def test_a_running_installation_shows_its_step_and_does_not_ask_to_install(module, monkeypatch):
    setup, page = module("blender_addon.backend_setup"), module("blender_addon.panels.preferences_page")
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    running = SimpleNamespace(finished=False, share=0.5, stage="Installing PyTorch", detail="torch, 90 of 180 MB")
    monkeypatch.setattr(setup, "current", lambda: running)
    layout = Layout()
    page.draw(module("blender_addon.preferences").get(), layout)
    assert "Installing PyTorch: torch, 90 of 180 MB" in layout.texts and "Not installed yet" not in layout.words


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("done", None, [("The backend is installed.", "INFO")]),
        ("failed", "The disk is full.", [("The disk is full.",)]),
        ("stopped", None, []),
    ],
)
def test_the_end_of_an_installation_is_told_though_the_page_is_closed(module, monkeypatch, state, error, told):
    setup, heard = module("blender_addon.backend_setup"), []
    ended = SimpleNamespace(finished=True, state=state, error=error)
    monkeypatch.setattr(setup, "_setup", setup._Setup(installation=ended))
    monkeypatch.setattr(setup, "finish", lambda: None)
    monkeypatch.setattr(setup, "report_soon", lambda *message: heard.append(message))
    assert setup._redraw_progress() is None and heard == told


def test_an_instance_of_a_rig_says_how_it_gets_its_avatar_and_an_override_can_be_shown_in_its_own_way(rig, tmp_path):
    collection = rig.mesh.users_collection[0]
    instance = bpy.data.objects.new("copy", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    bpy.context.scene.collection.objects.link(instance)
    bpy.context.view_layer.objects.active = instance
    assert "instances have no avatar" in " ".join(drawn("EFFIGY_PT_import").split())
    name = collection.name
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, target):
        target.collections = [name]
    linked = target.collections[0]
    instance = bpy.data.objects.new("linked", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", linked
    bpy.context.scene.collection.objects.link(instance)
    bpy.context.view_layer.objects.active = instance
    assert "Library Override ▸ Make" in " ".join(drawn("EFFIGY_PT_import").split())
    made = linked.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer, do_fully_editable=True)
    armature = next(obj for obj in made.all_objects if obj.type == "ARMATURE")
    name = armature.name
    chosen = {"mode": "POINTS", "scale": 0.5, "least_opacity": 0.25, "landmarks": True, "over_film": "SOLID"}
    for setting, value in chosen.items():
        assert armature.effigy_view.is_property_overridable_library(setting)
        setattr(armature.effigy_view, setting, value)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    kept = next(obj for obj in bpy.data.objects if obj.name == name and obj.library is None).effigy_view
    assert {setting: getattr(kept, setting) for setting in chosen} == chosen


def test_a_performance_is_cleaned_and_its_eyes_are_brought_to_life_from_the_tab(rig, module):
    words = drawn("EFFIGY_PT_performance")
    for label in ("Simplify", "Smooth", "Remove Spikes", "Blend Takes", "Gaze Target", "Blinks", "Breathing"):
        assert label in words
    bpy.ops.effigy.add_gaze_target()
    bpy.ops.effigy.add_blinks(blinks=30, seed=5, first=1, last=300)
    words = drawn("EFFIGY_PT_performance")
    assert f"{rig.mesh.name} gaze" in words and "Lids" in words and "Gaze Target" not in words
    for track in rig.mesh.data.shape_keys.animation_data.nla_tracks:
        # A damaged .blend has settings of no kind.
        for strip in track.strips:
            strip.action["effigy_life_settings"] = "x"
    module("blender_addon.rig.performance").remove_performance(rig)
    assert "no performance" in drawn("EFFIGY_PT_performance")


def test_a_head_without_expressions_offers_none(rig, module, monkeypatch):
    assert "Starter Expression" in drawn("EFFIGY_PT_sliders")
    monkeypatch.setattr(type(rig), "slider_names", ())
    words = drawn("EFFIGY_PT_sliders")
    assert "has no expressions" in " ".join(words.split()) and "Starter Expression" not in words


def test_work_that_is_done_is_told_outside_of_the_tab_too(module, monkeypatch):
    tasks, told = module("blender_addon.tasks"), []

    class Windowed:
        app = SimpleNamespace(background=False, timers=bpy.app.timers)

        def __getattr__(self, name):
            return getattr(bpy, name)

    monkeypatch.setattr(tasks, "bpy", Windowed())
    monkeypatch.setattr(tasks, "report_soon", lambda *message: told.append(message))

    def steps():
        yield 0.5
        return "3 files were written."

    task = tasks.start_local("Export anna.ply", steps)
    assert module("blender_addon.panels.jobs_panel").progress_text(task) == "0 %"
    tasks.wait(task)
    assert told == [("Export anna.ply: 3 files were written.", "INFO")]


def test_an_operator_that_waits_leaves_nothing_when_another_file_is_opened_meanwhile(module):
    """Blender then calls `cancel`. Without it, the text in the status bar and the timer would stay."""
    removed, texts = [], []
    context = SimpleNamespace(
        window_manager=SimpleNamespace(event_timer_remove=removed.append),
        workspace=SimpleNamespace(status_text_set=texts.append),
    )
    for operator in ("add_avatar", "choose_head", "install_backend", "relink_avatar", "use_python"):
        cls = getattr(module(f"operators.{operator}"), f"EFFIGY_OT_{operator}")
        cls.cancel(SimpleNamespace(_timer=operator), context)
    assert len(removed) == 5 and texts == [None] * 5


def test_durations_are_written_in_seconds_minutes_and_hours(module):
    duration = module("blender_addon.tasks").duration
    assert [duration(seconds) for seconds in (0.2, 42, 400, 7500)] == ["1 s", "42 s", "7 min", "2 h 05 min"]


RIG_OPERATORS = (
    "train_avatar",
    "resume_training",
    "key_all",
    "reset_expression",
    "mirror_expression",
    "simplify_performance",
    "smooth_performance",
    "remove_spikes",
    "hold_lids",
    "scale_performance",
    "offset_neutral",
    "mirror_performance",
    "loop_range",
    "blend_takes",
    "mark_unsure_frames",
    "add_blinks",
    "add_breathing",
    "add_gaze_target",
    "add_saccades",
    "remove_life",
    "add_head_light",
    "remove_head_light",
    "apply_preset",
    "pack_avatar",
    "unpack_avatar",
    "relink_avatar",
    "take_refined_track",
    "refine_track",
    "make_playable",
    "add_face_controls",
    "remove_face_controls",
    "controls_from_sliders",
    "sliders_from_controls",
    "make_pose_library",
    "add_pose",
)


def operators() -> list[str]:
    return [name for name in dir(bpy.ops.effigy) if not name.startswith("_")]


def test_every_file_in_operators_registers_the_operator_of_its_name(effigy):
    files = {path.stem for path in (Path(effigy.__file__).parent / "operators").glob("*.py")} - {"__init__"}
    assert files and files <= set(operators())


def test_every_operator_has_a_label_and_a_description_without_a_full_stop(effigy):
    for name in operators():
        kind = getattr(bpy.ops.effigy, name).get_rna_type()
        assert kind.name and kind.description and not kind.description.endswith("."), name


@pytest.mark.parametrize("name", RIG_OPERATORS)
def test_operators_on_a_rig_are_disabled_without_one(name):
    assert not getattr(bpy.ops.effigy, name).poll()


def test_with_two_rigs_and_none_selected_a_sentence_asks_to_select_one(rig, demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    bpy.context.view_layer.objects.active = None
    assert not bpy.ops.effigy.key_all.poll()
    with pytest.raises(Exception, match="select the one to use"):
        module("blender_addon.active").need_rig(bpy.context)


def test_operators_key_set_mirror_and_reset_the_face(rig):
    bpy.context.scene.frame_set(5)
    bpy.ops.effigy.apply_preset(preset="Wink", key=True)
    assert rig.key_blocks["eyeBlinkLeft"].value > 0.9 > rig.key_blocks["eyeBlinkRight"].value
    bpy.ops.effigy.mirror_expression()
    assert rig.key_blocks["eyeBlinkRight"].value > 0.9 > rig.key_blocks["eyeBlinkLeft"].value
    bpy.ops.effigy.reset_expression()
    assert all(block.value == 0 for block in rig.expression_keys())
    assert bpy.ops.effigy.key_all(head=True) == {"FINISHED"}


def test_colours_of_the_footage_are_one_click_away():
    bpy.context.scene.view_settings.view_transform = "AgX"
    bpy.ops.effigy.use_standard_view()
    assert bpy.context.scene.view_settings.view_transform == "Standard"


def test_file_import_and_drag_and_drop_lead_to_the_operator(effigy):
    layout = Layout()
    menu = SimpleNamespace(layout=layout)
    for draw in bpy.types.TOPBAR_MT_file_import.draw._draw_funcs:
        if draw.__module__.startswith(PACKAGE):
            draw(menu, bpy.context)
    assert "Video" in layout.words
    handlers = {
        cls.bl_import_operator: cls.bl_file_extensions
        for cls in bpy.types.FileHandler.__subclasses__()
        if cls.__module__.startswith(PACKAGE)
    }
    assert ".mp4" in handlers["effigy.import_video"] and ".effigy" in handlers["effigy.add_avatar"]


def test_the_extension_brings_no_pytorch_and_imports_none(effigy):
    folder = Path(effigy.__file__).parent
    # pip's own wheel installs the backend's packages.
    assert [wheel.name.split("-")[0] for wheel in folder.rglob("*.whl")] == ["pip"]
    assert not any(name.split(".")[0] in ("torch", "cv2", "mediapipe") for name in sys.modules)
