"""Live: packets on loopback move the rig, are recorded and replayed as they were seen, and bad ones do no harm."""

from __future__ import annotations

import importlib
import socket
import time
from math import radians

import bpy
import numpy as np
import pytest
from live_senders import Sender, bundle, live_link, osc, text, vmc, without_face
from rig_digest import digest
from rig_scenes import make_rig, rigging, tracked_rig
from test_extension_screen import drawn

NEUTRAL = {"browInnerUp": 0.3, "mouthSmileLeft": 0.1, "eyeBlinkLeft": 0.1, "eyeBlinkRight": 0.1}
CALIBRATION_FRAMES = 50
"""Of a phone at 60 a second: longer than `calibration.SECONDS`."""


@pytest.fixture
def live(module):
    session = module("blender_addon.live.session")
    yield session
    session._end()


def room(name: str):
    return importlib.import_module(f"bl_ext.user_default.effigy.blender_addon.live.{name}")


def settings():
    return bpy.context.window_manager.effigy_live


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def sender(live):
    """A phone that `go` has begun to listen to."""
    settings().source, settings().live_link_port = "LIVE_LINK", free_port()
    made = Sender(settings().live_link_port)
    yield made
    made.close()


def go(rig, sender: Sender) -> None:
    """Starts Live by the operator, with a performer whose neutral face is NEUTRAL."""
    bpy.context.view_layer.objects.active = rig.mesh
    assert bpy.ops.effigy.live_start() == {"FINISHED"}
    for frame in range(CALIBRATION_FRAMES):
        sender.send(live_link(frame, NEUTRAL))
    arrive(CALIBRATION_FRAMES)


def arrive(count: int = 1, too_long: int = 0) -> None:
    """Lets Live take what was sent, as its timer does."""
    session = room("session")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        receiver = session.current().source._receiver
        if len(receiver._waiting) >= count and receiver.too_long >= too_long:
            break
        time.sleep(0.002)
    session._tick()
    bpy.context.view_layer.update()


def state(rig) -> np.ndarray:
    return np.array(room("puppet").state_of(rig))


def slider(rig, name: str) -> float:
    return rig.key_blocks[name].value


def test_a_phone_moves_sliders_jaw_gaze_and_head_by_what_changes_from_the_neutral_face(sender):
    rig = make_rig()
    go(rig, sender)
    shown = NEUTRAL | {"browInnerUp": 0.7, "jawOpen": 0.5, "eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5}
    sender.send(live_link(100, shown, (0.2, 0.1, 0.0)))
    arrive()
    assert slider(rig, "browInnerUp") == pytest.approx(0.4, abs=1e-5)
    assert slider(rig, "mouthSmileLeft") == pytest.approx(0, abs=1e-6)
    assert slider(rig, "jawOpen") == 0
    face = rig.armature.effigy_face
    assert face.jaw_open == pytest.approx(radians(0.5 * 19.17), abs=1e-4)
    assert face.gaze_up == pytest.approx(radians(9.5), abs=1e-4)
    assert slider(rig, "eyeLookUpLeft") == pytest.approx(0.5, abs=1e-5)
    assert face.neck_turn == pytest.approx(0.2, abs=0.01) and face.neck_nod == pytest.approx(0.1, abs=0.01)


def test_closed_eyes_are_closed_whatever_the_neutral_lids_are_and_intensity_leaves_them(sender):
    rig = tracked_rig()
    settings().intensity = 0.5
    go(rig, sender)
    sender.send(live_link(100, NEUTRAL | {"eyeBlinkLeft": 1.0, "browInnerUp": 0.7}))
    arrive()
    settings().intensity = 1.0
    assert slider(rig, "eyeBlinkLeft") == pytest.approx(1, abs=1e-5)
    resting = room("puppet")._resting_face(rig)
    assert slider(rig, "browInnerUp") == pytest.approx(resting["browInnerUp"] + 0.2, abs=1e-5)


def test_mirrored_the_other_side_moves(sender):
    rig = make_rig()
    settings().mirror = True
    go(rig, sender)
    sender.send(live_link(100, NEUTRAL | {"mouthSmileLeft": 0.6}, (0.2, 0.0, 0.0)))
    arrive()
    settings().mirror = False
    assert slider(rig, "mouthSmileRight") == pytest.approx(0.5, abs=1e-5) and slider(rig, "mouthSmileLeft") == 0
    assert rig.armature.effigy_face.neck_turn == pytest.approx(-0.2, abs=1e-3)


def test_a_take_replays_what_was_seen_and_the_artists_keys_stay(sender):
    rig = tracked_rig()
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = 60, 1
    scene.frame_set(10)
    key = rig.mesh.data.shape_keys
    by_hand = key.animation_data.action
    before = state(rig)
    go(rig, sender)
    assert bpy.ops.effigy.live_record() == {"FINISHED"}
    seen = []
    for number in range(12):
        shown = NEUTRAL | {"jawOpen": 0.05 * number, "mouthPucker": 0.3, "eyeBlinkLeft": 0.1 + 0.07 * number}
        sender.send(live_link(100 + number, shown, (0.03 * number, 0.0, 0.02 * number)))
        arrive()
        seen.append(state(rig))
    assert bpy.ops.effigy.live_record() == {"FINISHED"}
    bpy.ops.effigy.live_stop()
    assert key.animation_data.action == by_hand
    assert [track.name for track in rig.armature.animation_data.nla_tracks][-1] == "Live take 1"
    for number, wanted in enumerate(seen):
        scene.frame_set(10 + number)
        assert np.abs(state(rig) - wanted).max() < 1e-5, number
    # Before it, the tracked performance plays as it did.
    scene.frame_set(9)
    scene.frame_set(10)
    assert np.abs(seen[0] - before).max() > 0.05


def test_a_take_is_undone_in_one_step(sender, module, monkeypatch):
    tasks = module("blender_addon.tasks")
    # Blender as a module counts as running without a window, where nothing is pushed.
    monkeypatch.setattr(tasks, "push_undo", lambda title: bpy.ops.ed.undo_push(message=title))
    rig = tracked_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    go(rig, sender)
    bpy.ops.effigy.live_record()
    for number in range(3):
        sender.send(live_link(100 + number, {"jawOpen": 0.2 * number}))
    arrive(3)
    bpy.ops.effigy.live_stop()
    assert digest() != before
    bpy.ops.ed.undo()
    assert digest() == before


def test_stopped_the_rig_is_as_it_was(sender):
    rig = make_rig()
    rig.key_blocks["mouthPucker"].value = 0.4
    rigging().sliders.refresh(rig)
    before = state(rig)
    go(rig, sender)
    sender.send(live_link(100, {"jawOpen": 1.0, "mouthSmileLeft": 1.0}, (0.3, 0, 0)))
    arrive()
    assert np.abs(state(rig) - before).max() > 0.2
    bpy.ops.effigy.live_stop()
    bpy.context.view_layer.update()
    assert np.abs(state(rig) - before).max() < 1e-6
    assert not [track for track in rig.armature.animation_data.nla_tracks if "Live" in track.name]


def test_a_performance_on_the_face_controls_rests_meanwhile(sender):
    rig = tracked_rig()
    bpy.context.view_layer.objects.active = rig.armature
    bpy.ops.effigy.add_face_controls()
    bpy.ops.effigy.controls_from_sliders(performance=True)
    bpy.context.scene.frame_set(6)
    before = state(rig), [tuple(bone.location) for bone in rig.handle_bones().values()]
    assert np.abs(before[1]).max() > 1e-3
    go(rig, sender)
    sender.send(live_link(100, NEUTRAL | {"mouthPucker": 0.9}))
    arrive()
    assert not any(any(bone.location) for bone in rig.handle_bones().values())
    bpy.ops.effigy.live_stop()
    bpy.context.view_layer.update()
    after = state(rig), [tuple(bone.location) for bone in rig.handle_bones().values()]
    assert np.allclose(after[0], before[0], atol=1e-6) and np.allclose(after[1], before[1], atol=1e-6)


def test_a_file_that_is_saved_meanwhile_has_the_artists_face(sender, tmp_path):
    rig = make_rig()
    rig.key_blocks["mouthPucker"].value = 0.4
    rigging().sliders.refresh(rig)
    before, name = state(rig), rig.mesh.name
    go(rig, sender)
    sender.send(live_link(100, {"jawOpen": 1.0, "mouthSmileLeft": 1.0}, (0.3, 0, 0)))
    arrive()
    moved = state(rig)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "live.blend"))
    assert np.array_equal(state(rig), moved)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "live.blend"))
    opened = rigging().rig_properties.find_rig(bpy.data.objects[name])
    assert np.allclose(state(opened), before, atol=1e-6)


def test_another_frame_of_the_timeline_shows_the_performer_still(sender):
    rig = tracked_rig()
    go(rig, sender)
    sender.send(live_link(100, NEUTRAL | {"mouthPucker": 0.9}))
    arrive()
    shown = state(rig)
    bpy.context.scene.frame_set(3)
    assert np.abs(state(rig) - shown).max() < 1e-6
    bpy.ops.effigy.live_stop()
    bpy.context.view_layer.update()
    moved = state(rig)
    bpy.context.scene.frame_set(3)
    assert np.abs(state(rig) - moved).max() < 1e-6


MALFORMED = (
    b"",
    b"nonsense",
    live_link(1, {})[:-1],
    live_link(1, {}) + b"\0",
    live_link(1, {"jawOpen": float("nan")}),
    live_link(1, {"jawOpen": 1e30}),
    without_face()[:41] + b"\x7f\xff\xff\xff" + b"x" * 400,
    without_face()[:41] + b"\xff\xff\xff\xff" + b"x" * 400,
    b"x" * 9000,
)


def test_malformed_packets_are_counted_and_left_out(sender):
    rig = make_rig()
    go(rig, sender)
    before = state(rig)
    for packet in MALFORMED:
        sender.send(packet)
    arrive(len(MALFORMED) - 1, too_long=1)
    source = room("session").current().source
    assert source.malformed + source._receiver.too_long == len(MALFORMED)
    assert np.array_equal(state(rig), before) and "packets left out" in source.figures
    assert "packets left out" in drawn("EFFIGY_PT_live") and "Record" in drawn("EFFIGY_PT_live")
    sender.send(live_link(2, NEUTRAL | {"jawOpen": 0.5}))
    arrive()
    assert rig.armature.effigy_face.jaw_open > 0.1


def test_damaged_packets_never_do_more_than_to_be_refused(module):
    random = np.random.default_rng(0)
    readers = {name: module(f"blender_addon.live.{name}") for name in ("live_link", "vmc")}
    for make, whole in (
        (readers["live_link"].LiveLinkReader, live_link(7, {"jawOpen": 0.5})),
        (readers["vmc"].VmcReader, vmc({"JawOpen": 0.5, "Joy": 1.0}, Head=(0.0, 0.0, 0.0, 1.0))),
    ):
        reader, refused = make(), 0
        for _ in range(3000):
            packet = bytearray(whole[: random.integers(0, len(whole) + 1)] if random.random() < 0.5 else whole)
            for place in random.integers(0, max(1, len(packet)), random.integers(1, 6)):
                packet[place : place + 1] = bytes(random.integers(0, 256, 1).astype(np.uint8))
            try:
                face = reader.read(bytes(packet), 0.0)
            except ValueError:
                refused += 1
                continue
            if face is not None:
                assert face.channels.min() >= 0 and face.channels.max() <= 1 and np.isfinite([*face.head]).all()
        assert refused > 300


def test_nested_and_endless_osc_is_refused(module):
    osc_module = module("blender_addon.live.osc")
    nested = osc("/face/jawOpen", 0.5)
    assert osc_module.messages_of(nested) == [("/face/jawOpen", (0.5,))]
    for _ in range(osc_module.MOST_DEPTH):
        nested = bundle(nested)
    assert len(osc_module.messages_of(nested)) == 1
    for damaged in (
        bundle(nested),
        bundle(*(text("/a") for _ in range(osc_module.MOST_MESSAGES + 1))),
        bundle(b"")[:16] + b"\0\0\0\0",
        text("/a") + text(",b") + b"\x7f\xff\xff\xff",
        text("/a") + text("," + "f" * 65) + 65 * b"\0\0\0\0",
        text("/a") + text(",f"),
        text("/a") + text(",q") + 4 * b"\0",
        b"/no end",
    ):
        with pytest.raises(ValueError):
            osc_module.messages_of(damaged)


def test_plain_osc_and_vrms_few_expressions_are_understood(module):
    vmc_module, face = module("blender_addon.live.vmc"), module("blender_addon.live.face")
    plain = vmc_module.VmcReader().read(
        bundle(osc("/avatar/parameters/jawOpen", 0.25), osc("/tracking/other", 1.0)), 3.0
    )
    assert plain.channels[face.INDEX["jawOpen"]] == 0.25 and plain.channels.sum() == 0.25 and plain.time == 3.0
    few = vmc_module.VmcReader().read(vmc({"A": 0.5, "Blink": 1.0}), 3.0)
    assert few.channels[face.INDEX["jawOpen"]] == pytest.approx(0.35)
    assert few.channels[face.INDEX["eyeBlinkLeft"]] == 1
    assert vmc_module.VmcReader().read(osc("/tracking/other", 1.0), 3.0) is None


def test_a_second_sender_waits_until_the_first_is_silent(module):
    receiver = module("blender_addon.live.receiver")
    made = receiver.Receiver(0, network=False)
    made._keep(b"a", "10.0.0.1", 100.0)
    made._keep(b"b", "10.0.0.2", 101.0)
    assert (made.sender, made.others) == ("10.0.0.1", 1)
    made._keep(b"c", "10.0.0.2", 104.0)
    assert made.sender == "10.0.0.2" and [packet for packet, _ in made.take()] == [b"a", b"c"]
    for number in range(2 * receiver.MOST_WAITING):
        made._keep(b"d", "10.0.0.2", 104.0 + number / 60)
    assert len(made.take()) == receiver.MOST_WAITING
    made.close()


def test_vmc_moves_the_rig_in_unitys_axes(live):
    settings().source, settings().vmc_port = "VMC", free_port()
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    bpy.ops.effigy.live_start()
    live.current().calibration.neutral = room("calibration").STILL
    phone = Sender(settings().vmc_port)
    # By 0.2 radians to the performer's left: about Unity's y axis, which is left-handed, that is negative.
    turn = (0.0, float(-np.sin(0.1)), 0.0, float(np.cos(0.1)))
    phone.send(vmc({"BrowInnerUp": 0.5, "mouthSmile_L": 0.25}, Head=turn))
    arrive()
    phone.close()
    assert slider(rig, "browInnerUp") == pytest.approx(0.5, abs=1e-5)
    assert slider(rig, "mouthSmileLeft") == pytest.approx(0.25, abs=1e-5)
    assert rig.armature.effigy_face.neck_turn == pytest.approx(0.2, abs=1e-3)


def test_the_backend_watches_a_film_in_place_of_a_camera(live, module, demo_clip, monkeypatch):
    webcam = module("blender_addon.live.webcam")
    monkeypatch.setattr(live, "WebcamSource", lambda _: webcam.WebcamSource(str(demo_clip)))
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    settings().source = "WEBCAM"
    bpy.ops.effigy.live_start()
    assert "Opening the camera" in live.current().source.trouble
    seen, deadline = [], time.monotonic() + 60
    while len(seen) < 20 and time.monotonic() < deadline:
        live._tick()
        if live.current().moved:
            seen.append(state(rig))
        time.sleep(0.02)
    assert np.ptp(seen, axis=0).max() > 0.02
    job = live.current().source._job
    assert "ms old" in live.current().source.figures and live.current().source.trouble == ""
    bpy.ops.effigy.live_stop()
    client = module("blender_addon.worker.session").client()
    assert client.wait(job, 20).state == "cancelled"


def test_a_camera_that_cannot_be_opened_ends_live_with_a_sentence(live, capsys):
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    settings().source, settings().camera = "WEBCAM", 98
    bpy.ops.effigy.live_start()
    settings().camera = 0
    deadline = time.monotonic() + 60
    while live.current() is not None and time.monotonic() < deadline:
        live._tick()
        time.sleep(0.02)
    assert live.current() is None and "Camera 98 cannot be opened" in capsys.readouterr().out


def test_it_listens_to_this_computer_alone_unless_the_artist_allows_the_network(live, monkeypatch):
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    settings().source, settings().live_link_port = "LIVE_LINK", free_port()
    bpy.ops.effigy.live_start()
    assert live.current().source._receiver._socket.getsockname()[0] == "127.0.0.1"
    bpy.ops.effigy.live_stop()
    settings().network = True
    try:
        if not bpy.app.online_access:
            with pytest.raises(RuntimeError, match="Online Access"):
                bpy.ops.effigy.live_start()
            assert live.current() is None
    finally:
        settings().network = False


def test_a_port_in_use_gets_a_sentence_and_is_free_after_stopping(live):
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.mesh
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        settings().source, settings().live_link_port = "LIVE_LINK", other.getsockname()[1]
        with pytest.raises(RuntimeError, match="used by another program"):
            bpy.ops.effigy.live_start()
    bpy.ops.effigy.live_start()
    bpy.ops.effigy.live_stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", settings().live_link_port))


def test_a_phone_that_falls_silent_or_sees_nobody_is_said(sender, module, monkeypatch):
    rig = make_rig()
    go(rig, sender)
    sources = module("blender_addon.live.sources")
    source = room("session").current().source
    assert source.trouble == ""
    monkeypatch.setattr(sources, "LOST_SECONDS", 0.05)
    time.sleep(0.1)
    assert "has sent nothing" in source.trouble
    sender.send(without_face())
    arrive()
    assert "sees no face" in source.trouble


def test_a_rig_that_is_deleted_and_a_new_file_end_it(sender):
    rig = make_rig()
    go(rig, sender)
    bpy.data.objects.remove(rig.mesh)
    sender.send(live_link(100, {}))
    arrive()
    assert room("session").current() is None
    rig = make_rig()
    go(rig, sender)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    assert room("session").current() is None
