"""The worker: answers Blender's requests over stdio until stdin closes.

    hello          {arrays: files | inline}             → what this worker is, where its arrays lie
    doctor         {}                                   → {rows: [[what, state, sentence], …]}
    head.rig       {head, identity}                     → all that a rig is made of (`rig_data.head_rig`)
    track.read     {path}                               → the fields of a `Track`
    capture.read   {path}                               → crop, frame numbers, rate, landmarks, source of a `Capture`
    avatar.open    {path}                               → {avatar: its key, info}
    avatar.splats  {avatar, pose, view | direction, anchors} → means, quaternions, scales, opacities, colors (`posing`)
    avatar.export  {subjects, view | direction, axes, path} → {gaussians}, and a `.ply` of them at `path`
    avatar.render  {subjects: [{avatar, pose}], camera, enhanced} → color, alpha, depth
    job.start      {kind, params}                       → {job: its name} (`job_kinds`); then `job.progress`,
                                                          `job.preview` and `job.message` as they come, and at last
                                                          one of `job.done`, `job.failed`, `job.cancelled`
    job.cancel     {job}                                → {stopping: whether it still ran}

Two threads. One reads messages and does what must never wait: jobs are started and cancelled there. The other works the
rest off in order. When stdin closes (Blender quit or died) the worker ends at once and its jobs with it: each of them
watches a pipe of its own (`backend.service.job_process`).
"""

from __future__ import annotations

import os
import platform
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import EffigyError
from .jobs import Jobs
from .parameters import Parameters
from .protocol import DEFECT, REFUSED, SCHEMA, UNKNOWN_METHOD, ArrayFolders, Channel, read_inline

VERSION = "0.1.0"
MOST_THREADS = 8
"""PyTorch's threads: the networks are small, and more threads than this wait for one another."""


def serve() -> None:
    """Run the worker; returns never, the process ends when stdin closes."""
    arrays = ArrayFolders()
    channel = Channel(arrays)
    worker = _Worker(channel)
    threading.Thread(target=worker.read, daemon=True).start()
    worker.work()


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._jobs = Jobs(channel)
        self._posing: Any = None
        self._methods: dict[str, Callable[[Parameters], dict[str, Any]]] = {
            "hello": self._hello,
            "head.rig": _head_rig,
            "track.read": _read_track,
            "capture.read": _read_capture,
            "avatar.open": lambda given: self._poser().open(given),
            "avatar.splats": lambda given: self._poser().splats(given),
            "avatar.export": lambda given: self._poser().export(given),
            "avatar.render": lambda given: self._poser().render(given),
        }

    def read(self) -> None:
        """The reading thread. It ends the process, whatever the other thread is at."""
        try:
            for message in self._channel.messages():
                match message.get("method"):
                    case "hello":
                        # Said before anything is answered, jobs included.
                        self._channel.arrays.inline = (message.get("params") or {}).get("arrays") == "inline"
                        self._waiting.put(message)
                    case "job.start":
                        self._answer(message, self._jobs.start)
                        self._jobs.begin()
                    case "job.cancel":
                        self._answer(message, self._jobs.cancel)
                    case "doctor":
                        self._jobs.examine(lambda outcome, message=message: self._answer(message, lambda _: outcome()))
                    case _:
                        self._waiting.put(message)
        finally:
            self._channel.arrays.close()
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(0)

    def work(self) -> None:
        """The main thread: one request after the other."""
        while True:
            message = self._waiting.get()
            method = self._methods.get(message.get("method", ""))
            if method is None:
                sentence = f"The worker knows no method “{message.get('method')}”: update Effigy."
                self._refuse(message, UNKNOWN_METHOD, sentence)
            else:
                self._answer(message, method)

    def _answer(self, message: dict[str, Any], method: Callable[[Parameters], dict[str, Any]]) -> None:
        try:
            given = read_inline(message.get("params") or {})
            result = method(Parameters(given, message["method"]))
            if "id" in message:
                self._channel.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
        except EffigyError as error:
            self._refuse(message, REFUSED, str(error))
        except MemoryError:
            self._refuse(message, REFUSED, "There is not enough memory: choose a smaller picture, or close programs.")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            sentence = (
                f"The worker met a defect in {message.get('method')} ({type(error).__name__}: {error}); "
                "its log holds the details."
            )
            self._refuse(message, DEFECT, sentence, traceback.format_exc())

    def _refuse(self, message: dict[str, Any], code: int, sentence: str, data: str | None = None) -> None:
        error = {"code": code, "message": sentence} | ({"data": data} if data else {})
        self._channel.send({"jsonrpc": "2.0", "id": message.get("id"), "error": error})

    def _hello(self, given: Parameters) -> dict[str, Any]:
        given.known("arrays")
        given.text("arrays", "files", choices=("files", "inline"))
        told = {
            "schema": SCHEMA,
            "version": VERSION,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "folders": [] if self._channel.arrays.inline else self._channel.arrays.folders,
        }
        try:
            import torch
        except ImportError:
            # `doctor` must still be reachable, to say so.
            return told | {"torch": None, "device": None}
        torch.set_num_threads(max(1, min(os.cpu_count() or 1, MOST_THREADS)))
        return told | {"torch": torch.__version__, "device": "cuda" if torch.cuda.is_available() else "cpu"}

    def _poser(self) -> Any:
        if self._posing is None:
            try:
                from .posing import Posing
            except ImportError as error:
                raise EffigyError(f"The backend's Python lacks {error.name}: install the backend again.") from error
            self._posing = Posing()
        return self._posing


def _head_rig(given: Parameters) -> dict[str, Any]:
    from .rig_data import head_rig

    return head_rig(given)


def _read_track(given: Parameters) -> dict[str, Any]:
    from .rig_data import read_track

    return read_track(given)


def _read_capture(given: Parameters) -> dict[str, Any]:
    from .rig_data import read_capture

    return read_capture(given)
