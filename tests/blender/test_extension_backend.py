"""The preferences: a missing, unsuitable, chosen or installed backend, and the head model. Errors are sentences, never
tracebacks.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

NAME = "EFFIGY_BACKEND_PYTHON"
BACKEND = os.environ[NAME]


@pytest.fixture
def settings(module):
    chosen = module("blender_addon.preferences").get()
    yield chosen
    chosen.backend_python = chosen.head_file = chosen.head_said = ""


@pytest.fixture
def no_backend(monkeypatch, settings):
    monkeypatch.delenv(NAME)


def test_without_a_backend_every_operator_that_needs_it_says_what_to_do(
    no_backend, demo_clip, demo_capture, demo_avatar, module, tmp_path
):
    with pytest.raises(RuntimeError, match="not installed yet.*Preferences.*Install Backend"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), capture=str(tmp_path / "x.capture"))
    for call in (
        lambda: bpy.ops.effigy.import_capture(directory=str(demo_capture)),
        lambda: bpy.ops.effigy.choose_head(filepath=str(demo_clip)),
        lambda: bpy.ops.effigy.examine_backend(),  # noqa: PLW0108
    ):
        with pytest.raises(RuntimeError, match="not installed yet"):
            call()
    assert module("blender_addon.backend_setup").state()[0] is False
    # An avatar that can be played needs none.
    assert bpy.ops.effigy.add_avatar(filepath=str(demo_avatar)) == {"FINISHED"}


def test_a_python_that_can_run_the_backend_is_accepted(settings, module):
    python = os.environ[NAME]
    assert bpy.ops.effigy.use_python(filepath=python) == {"FINISHED"}
    assert settings.backend_python == python
    assert module("blender_addon.preferences").backend_python() == Path(python)
    assert bpy.ops.effigy.use_own_backend() == {"FINISHED"} and settings.backend_python == ""


def test_a_python_that_cannot_is_refused_with_the_reason_and_not_kept(settings, tmp_path):
    # Blender's own Python lacks PyTorch.
    for path, message in (
        (sys.executable, "lacks torch"),
        (str(tmp_path / "python"), "no Python at"),
        (str(tmp_path), "is a folder"),
    ):
        with pytest.raises(RuntimeError, match=message):
            bpy.ops.effigy.use_python(filepath=path)
    assert settings.backend_python == ""


def test_a_chosen_python_that_has_gone_is_named(settings, module, tmp_path):
    settings.backend_python = str(tmp_path / "env" / "bin" / "python")
    ready, sentence = module("blender_addon.backend_setup").state()
    assert not ready and str(tmp_path) in sentence


def test_installing_without_online_access_is_refused_with_where_to_allow_it(no_backend, module, monkeypatch):
    if bpy.app.online_access:
        monkeypatch.setattr(module("blender_addon.backend_setup"), "bpy", _Offline())
    with pytest.raises(RuntimeError, match="Allow Online Access"):
        bpy.ops.effigy.install_backend()


class _Offline:
    """bpy, with the network switched off."""

    class app:
        online_access = False
        background = True
        timers = bpy.app.timers

    def __getattr__(self, name):
        return getattr(bpy, name)


@pytest.fixture
def imitation(module, monkeypatch, tmp_path):
    """A fake Python that makes environments in a second and logs the commands that were run.

    Its arguments are `run_module.py`, the wheel of pip, the module, and the module's arguments.
    """
    log = tmp_path / "ran.txt"
    fake = tmp_path / "python3"
    fake.write_text(f"""#!/bin/sh
echo "$@" >> {log}
if [ "$3" = venv ]; then mkdir -p "$5/bin"; cp "$0" "$5/bin/python"; fi
if [ "$3" = pip ]; then echo "Collecting numpy==2"; fi
if [ "$3" = pip ] && [ -e {tmp_path}/fail ]; then echo "ERROR: [Errno 28] No space left on device"; exit 1; fi
if [ "$3" = backend ]; then echo "Training  ok  An avatar was drawn on the device cpu."; fi
exit 0
""")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    setup = module("blender_addon.backend_setup")
    monkeypatch.setattr(setup, "base_python", lambda: str(fake))
    monkeypatch.setattr(setup, "bpy", _Online())
    _wait_for_replacing(setup)
    yield log
    _wait_for_replacing(setup)


def _wait_for_replacing(setup):
    """An installation ends a worker in a thread, which then removes environments: not those of the next test."""
    for thread in threading.enumerate():
        if thread.name == setup.REPLACING:
            thread.join(30)


class _Online(_Offline):
    class app:
        online_access = True
        background = True
        timers = bpy.app.timers


@pytest.mark.skipif(os.name == "nt", reason="the imitation of Python is a shell script")
def test_install_backend_makes_an_environment_below_the_users_folder_and_uses_it(no_backend, imitation, module):
    preferences, setup = module("blender_addon.preferences"), module("blender_addon.backend_setup")
    assert bpy.ops.effigy.install_backend() == {"FINISHED"}
    ran = imitation.read_text()
    assert " venv " in ran and "--require-hashes" in ran and "backend doctor --check" in ran
    assert setup.current().notes == ["An avatar was drawn on the device cpu."]
    python = preferences.backend_python()
    assert python.is_relative_to(os.environ["BLENDER_USER_RESOURCES"]) and setup.state()[0]
    assert python.is_relative_to(preferences.user_folder())
    stamp = preferences.environments().current() / "effigy-backend.json"
    stamp.write_text(stamp.read_text().replace('"requirements": "', '"requirements": "older'))
    assert "another version" in setup.state()[1]


@pytest.mark.skipif(os.name == "nt", reason="the imitation of Python is a shell script")
def test_a_failed_installation_is_reported_and_leaves_the_one_before(no_backend, imitation, module, tmp_path):
    preferences = module("blender_addon.preferences")
    (tmp_path / "fail").touch()
    with pytest.raises(RuntimeError, match="disk is full"):
        bpy.ops.effigy.install_backend()
    assert preferences.environments().current() is None
    (tmp_path / "fail").unlink()
    assert bpy.ops.effigy.install_backend() == {"FINISHED"}
    python = preferences.backend_python()
    (tmp_path / "fail").touch()
    with pytest.raises(RuntimeError, match="installed before still works"):
        bpy.ops.effigy.install_backend()
    assert preferences.backend_python() == python and python.is_file()


@pytest.mark.skipif(os.name == "nt", reason="the imitation of Python is a shell script")
def test_the_backend_of_an_earlier_version_is_used(no_backend, imitation, module):
    preferences = module("blender_addon.preferences")
    assert bpy.ops.effigy.install_backend() == {"FINISHED"}
    _wait_for_replacing(module("blender_addon.backend_setup"))
    environments = preferences.environments()
    # Earlier versions made their environment in this folder.
    former = preferences.user_folder() / "backend"
    environments.current().rename(former)
    assert preferences.backend_python().is_relative_to(former)


@pytest.mark.skipif(os.name == "nt", reason="the imitation of Python is a shell script")
def test_a_machine_that_is_not_supported_is_refused_with_the_reason(no_backend, imitation, module, monkeypatch):
    setup, machine = module("blender_addon.backend_setup"), module("blender_addon.installation.machine")
    monkeypatch.setattr(
        setup, "this_machine", lambda: machine.Machine("Darwin", (3, 11), processor="arm64", version=(13, 6))
    )
    with pytest.raises(RuntimeError, match="PyTorch needs macOS 14: update macOS"):
        bpy.ops.effigy.install_backend()
    assert not imitation.exists()


def test_a_slow_graphics_driver_blocks_neither_the_page_nor_the_button(module, monkeypatch):
    setup, machine = module("blender_addon.backend_setup"), module("blender_addon.installation.machine")
    operator = module("operators.install_backend").EFFIGY_OT_install_backend
    answers, redrawn, asked_in = threading.Event(), [], []

    def slow():
        asked_in.append(threading.current_thread())
        answers.wait(20)
        return machine.Machine("Linux", (3, 11), processor="x86_64", version=(2, 36))

    monkeypatch.setattr(setup, "_setup", setup._Setup())
    monkeypatch.setattr(setup, "this_machine", slow)
    monkeypatch.setattr(setup, "redraw_panels", lambda: redrawn.append(True))
    monkeypatch.setattr(setup, "bpy", _Online())
    assert setup.plan() is None and setup.plan() is None and bpy.app.timers.is_registered(setup._take_machine)
    assert setup._take_machine() == setup.DETECTION_INTERVAL and not redrawn
    # The button starts to wait without asking on Blender's own thread.
    pressed = SimpleNamespace(execute=lambda context: {"RUNNING_MODAL"})
    assert operator.invoke(pressed, bpy.context, None) == {"RUNNING_MODAL"} and not pressed._confirmed
    assert operator.prepare(pressed, bpy.context) is slow
    answers.set()
    until = time.monotonic() + 20
    while setup._take_machine() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert redrawn == [True] and setup.plan().messages and setup.machine_is_fresh()
    assert threading.main_thread() not in asked_in and len(asked_in) == 1
    bpy.app.timers.unregister(setup._take_machine)


def test_replacing_an_idle_worker_does_not_wait_for_its_end(module, monkeypatch):
    setup, session = module("blender_addon.backend_setup"), module("blender_addon.worker.session")
    client = session.client()
    client.call("head.rig", {})
    pid = client.pid
    monkeypatch.setattr(setup._setup, "installation", SimpleNamespace(state=setup.DONE))
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    setup.finish()
    assert time.monotonic() - begun < 1.0 and session.current() is None
    os.kill(pid, signal.SIGCONT)


@pytest.fixture(autouse=True)
def no_installed_environment(module):
    yield
    import shutil

    environments = module("blender_addon.preferences").environments()
    for folder in (environments.root, environments.former):
        shutil.rmtree(folder, ignore_errors=True)


def test_examining_the_backend_fills_a_table(module):
    setup, session = module("blender_addon.backend_setup"), module("blender_addon.worker.session")
    bpy.ops.effigy.examine_backend()
    assert setup.is_examining()
    until = time.monotonic() + 90
    while setup.is_examining() and time.monotonic() < until:
        session.client().pump()
        time.sleep(0.02)
    rows = {subject: state for subject, state, _ in setup.findings()}
    assert rows["PyTorch"] == "ok" and rows["Open head"] == "ok"


def test_a_report_of_a_worker_that_was_replaced_is_not_waited_for(module):
    bpy.ops.effigy.examine_backend()
    module("blender_addon.worker.session").shutdown()
    assert not module("blender_addon.backend_setup").is_examining() and bpy.ops.effigy.examine_backend.poll()


def test_the_users_head_model_is_described_and_used_for_new_rigs(settings, effigy):
    head = Path(effigy.__file__).parent / "assets" / "open_head.npz"
    assert bpy.ops.effigy.choose_head(filepath=str(head)) == {"FINISHED"}
    assert (
        settings.head_file == str(head) and "vertices" in settings.head_said and "52 expression" in settings.head_said
    )
    bpy.ops.effigy.use_open_head()
    assert settings.head_file == ""


def test_a_file_that_is_no_head_model_is_refused_and_not_kept(settings, demo_clip, tmp_path):
    notes = tmp_path / "flame.pkl"
    notes.write_text("no head")
    for path, said in (
        (notes, "is damaged"),
        (demo_clip, "is a video, where a head model is needed: import it with Import Video"),
        (tmp_path / "gone.npz", "There is no head model at"),
    ):
        with pytest.raises(RuntimeError, match=said):
            bpy.ops.effigy.choose_head(filepath=str(path))
    assert settings.head_file == ""


def test_a_flame_file_that_does_not_say_what_are_expressions_is_asked_about_once(settings, effigy, tmp_path):
    with np.load(Path(effigy.__file__).parent / "assets" / "open_head.npz") as head:
        arrays = {"v_template": head["template"], "f": head["faces"], "weights": head["skinning"]}
        arrays |= {"J_regressor": head["joint_regressor"], "shapedirs": head["shape_basis"][..., :30]}
    np.savez(tmp_path / "flame.npz", **arrays)
    with pytest.raises(RuntimeError, match="30 components of shape.*the field Expressions of Use My FLAME File"):
        bpy.ops.effigy.choose_head(filepath=str(tmp_path / "flame.npz"))
    assert settings.head_file == ""
    bpy.ops.effigy.choose_head(filepath=str(tmp_path / "flame.npz"), expression_count=10)
    assert "20 identity and 10 expression" in settings.head_said
    # From then on the worker knows.
    bpy.ops.effigy.choose_head(filepath=str(tmp_path / "flame.npz"))
    assert "20 identity and 10 expression" in settings.head_said and "only its eyes" not in settings.head_said
    bpy.ops.effigy.choose_head(filepath=str(tmp_path / "flame.npz"), expression_count=0)
    assert "0 expression components, so only its eyes, jaw and neck can move" in settings.head_said


def test_a_head_model_that_has_gone_is_named_when_a_video_is_imported(settings, demo_clip, tmp_path):
    settings.head_file = str(tmp_path / "flame.npz")
    with pytest.raises(RuntimeError, match="flame.npz"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), capture=str(tmp_path / "x.capture"))


@pytest.fixture
def elsewhere(no_backend, settings, effigy, tmp_path, module):
    """A worker started by `ssh studio '…'`, with a fake `ssh` that runs the command on this machine and logs the
    host.
    """
    ssh = tmp_path / "ssh"
    hosts, there = tmp_path / "hosts", tmp_path / "there"
    ssh.write_text(f'#!/bin/sh\necho "$1" >> {hosts}\nshift\nexport EFFIGY_USER={there}\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    session = module("blender_addon.worker.session")
    session.shutdown()
    settings.worker_command = f"{ssh} studio 'cd {Path(effigy.__file__).parent} && {BACKEND} -m backend serve'"
    yield tmp_path
    session.shutdown()
    settings.worker_command = ""


def test_the_worker_starts_without_the_users_pythonpath(module, monkeypatch, tmp_path):
    imported = tmp_path / "imported"
    (tmp_path / "sitecustomize.py").write_text(f"import pathlib; pathlib.Path({str(imported)!r}).touch()")
    session = module("blender_addon.worker.session")
    session.shutdown()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    try:
        assert session.client().call("head.rig", {})["vertices"].shape == (5200, 3)
        assert not imported.exists()
    finally:
        session.shutdown()


@pytest.mark.skipif(os.name == "nt", reason="the imitation of ssh is a shell script")
def test_a_worker_on_another_machine_sends_its_arrays_in_its_messages(elsewhere, demo_clip, module):
    session, setup = module("blender_addon.worker.session"), module("blender_addon.backend_setup")
    ready, message = setup.state()
    assert ready and "studio" in message
    rig = session.client().call("head.rig", {})
    assert rig["vertices"].shape == (5200, 3) and session.client().array_folders == []
    bpy.ops.effigy.import_video(
        filepath=str(demo_clip), last=3, size=128, landmarks_only=True, capture=str(elsewhere / "x.capture")
    )
    assert (elsewhere / "hosts").read_text().split() == ["studio"] and bpy.context.object.name == "demo rig"
    task = module("blender_addon.tasks").all_tasks()[-1]
    assert task.job.preview is not None and task.job.preview.dtype == "uint8"
    client = session.client()
    assert client.sender.bytes_sent >= demo_clip.stat().st_size and client.fetcher.bytes_fetched > 10_000
    assert (elsewhere / "x.capture" / "track.npz").is_file()


@pytest.mark.skipif(os.name == "nt", reason="the imitation of ssh is a shell script")
def test_files_in_a_shared_folder_are_not_sent(elsewhere, demo_clip, settings, module):
    session = module("blender_addon.worker.session")
    page = module("blender_addon.panels.preferences_page")
    first = session.client()
    bpy.ops.effigy.add_shared_folder()
    bpy.ops.effigy.add_shared_folder()
    try:
        settings.shared[0].local, settings.shared[0].remote = str(elsewhere), "relative/folder"
        with pytest.raises(Exception, match="Shared Folders.*must be a full path"):
            session.client()
        (elsewhere / "mounted").symlink_to(elsewhere)
        settings.shared[0].remote = str(elsewhere / "mounted")
        assert session.client() is not first
        (elsewhere / "clip.mp4").write_bytes(demo_clip.read_bytes())
        params = {"video": str(elsewhere / "clip.mp4"), "capture": str(elsewhere / "y.capture"), "size": 128}
        job = session.client().start_job("capture", params | {"max_frames": 2})
        session.client().wait(job, 60)
        assert job.result["capture"] == str(elsewhere / "y.capture"), job.error
        assert session.client().sender.bytes_sent == 0 and (elsewhere / "y.capture" / "capture.json").is_file()
        from test_extension_screen import Layout

        layout = Layout()
        page.draw(settings, layout)
        assert "Shared Folders" in layout.words and "Add Shared Folder" in layout.words
        assert "On This Machine" in layout.words and "On the Worker's Machine" in layout.words
        bpy.ops.effigy.remove_shared_folder(index=1)
        assert len(settings.shared) == 1
    finally:
        settings.shared.clear()


def test_bytes_that_are_sent_are_counted_in_megabytes(module):
    job_class, messages = module("blender_addon.worker.jobs").Job, module("blender_addon.worker.messages")
    task = module("blender_addon.tasks").Task("Import clip", lambda result: iter(()), "")
    task.job = job_class("import", {}, lambda job: None)
    task.job.on_event(messages.JobProgress("Sending footage to the worker", 120, 480, eta=20.0, unit="MB"))
    text = module("blender_addon.panels.jobs_panel").progress_text(task)
    assert text == "Sending footage to the worker, 120 of 480 MB, 20 s left"
    # A quarter of the share that sending has in the whole job.
    assert task.fraction == pytest.approx(0.25 * module("blender_addon.worker.jobs").TRANSFER_SHARE)


def test_a_worker_command_that_cannot_be_run_is_reported_with_a_sentence(no_backend, settings, module):
    session = module("blender_addon.worker.session")
    try:
        settings.worker_command = "no-such-program studio"
        with pytest.raises(Exception, match="could not be started with no-such-program"):
            session.client().call("head.rig", {})
        settings.worker_command = 'ssh studio "cd effigy && serve"'
        assert '“ssh studio "cd effigy && serve"”' in module("blender_addon.backend_setup").state().message
        settings.worker_command = "ssh studio 'cd effigy"
        with pytest.raises(Exception, match="quotation mark that is never closed"):
            session.client()
        assert module("blender_addon.backend_setup").state()[0] is False
    finally:
        settings.worker_command = ""
        session.shutdown()
