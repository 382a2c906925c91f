"""The worker: answers Blender's requests over stdio until stdin closes.

    hello          {arrays: files | inline}             → what this worker is, and the folders of its arrays
    doctor         {}                                   → {rows: [[what, state, sentence], …]}
    head.rig       {head, identity}                     → all that a rig is built from (`rig_data.HeadRig`)
    head.remember  {file}                               → {name, fingerprint} of a head model that others will need
    track.read     {path}                               → the fields of a `Track`
    capture.read   {path}                               → crop, frame numbers, rate, landmarks, source of a `Capture`
    avatar.open    {path}                               → {avatar: its key, info}
    avatar.splats  {avatar, pose, view | direction, anchors} → means, quaternions, scales, opacities, colors (`posing`)
    avatar.export  {subjects, view | direction, axes, path} → {gaussians}, and a `.ply` of them at `path`
    avatar.render  {subjects: [{avatar, pose}], camera, enhanced} → color, alpha, depth
    job.start      {kind, params}                       → {job: its name} (`job_specs`); then `job.progress`,
                                                          `job.preview` and `job.message` as they come, and at last
                                                          one of `job.done`, `job.failed`, `job.cancelled`
    job.cancel     {job}                                → {stopping: whether it was still running}
    file.…                                                for a client that shares no files (`exchange`)

There are three threads. One reads messages and handles those that must never wait: it starts and cancels jobs. Another
sends and receives files. The main thread handles all other requests in order. When stdin closes (Blender quit or died)
the worker ends at once and its jobs with it: each job watches a pipe of its own (`backend.service.job_process`).
"""

from __future__ import annotations

import os
import platform
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import __version__
from ..errors import EffigyError
from .exchange import Exchange
from .jobs import Jobs
from .parameters import Parameters
from .protocol import DEFECT, REFUSED, SCHEMA, UNKNOWN_METHOD, ArrayFolders, Channel, read_inline

if TYPE_CHECKING:
    from .posing import Posing

MAX_THREADS: Final = 8
"""PyTorch's threads: the networks are small, and more threads than this wait for one another."""

Method = Callable[[Parameters], Any]
"""A method of the worker: takes its parameters, returns what `Channel.send` can write, and raises `EffigyError`."""


@dataclass(frozen=True)
class WorkerInfo:
    """The answer to `hello`."""

    schema: int
    """Version of the protocol."""
    version: str
    """Version of Effigy."""
    python: str
    pid: int
    folders: list[str]
    """Where array files go; empty where arrays go inside messages."""
    torch: str | None
    """Version of PyTorch; None where it is not installed."""
    device: str | None
    """`cpu` where PyTorch has no GPU. None without PyTorch, and where there is a GPU: whether it is usable is found out
    when it is first needed, and `avatar.open` answers the device in any case."""


def serve() -> None:
    """Run the worker. Never returns: the process ends when stdin closes."""
    arrays = ArrayFolders()
    channel = Channel(arrays)
    worker = _Worker(channel)
    threading.Thread(target=worker.read, daemon=True).start()
    threading.Thread(target=worker.exchange_files, daemon=True).start()
    worker.work()


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting_for_files: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._jobs = Jobs(channel)
        self._posing: Posing | None = None
        self._methods: dict[str, Method] = {
            "hello": self._hello,
            "head.rig": _head_rig,
            "head.remember": _remember_head,
            "track.read": _read_track,
            "capture.read": _read_capture,
            "avatar.open": lambda parameters: self._pose(parameters, lambda posing: posing.open),
            "avatar.splats": lambda parameters: self._pose(parameters, lambda posing: posing.splats),
            "avatar.export": lambda parameters: self._pose(parameters, lambda posing: posing.export),
            "avatar.render": lambda parameters: self._pose(parameters, lambda posing: posing.render),
        }

    def read(self) -> None:
        """The reading thread. It ends the process, whatever the other thread is doing."""
        try:
            for message in self._channel.messages():
                match message.get("method"):
                    case "hello":
                        # Set before anything else is answered, jobs included.
                        self._channel.arrays.inline = (message.get("params") or {}).get("arrays") == "inline"
                        self._waiting.put(message)
                    case "job.start":
                        self._answer(message, self._jobs.start)
                        self._jobs.forward_events()
                    case "job.cancel":
                        self._answer(message, self._jobs.cancel)
                    case "doctor":
                        self._jobs.examine(lambda outcome, message=message: self._answer(message, lambda _: outcome()))
                    case str(method) if method.startswith("file."):
                        self._waiting_for_files.put(message)
                    case _:
                        self._waiting.put(message)
        finally:
            self._channel.arrays.close()
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(0)

    def work(self) -> None:
        """The main thread: handles one request after the other."""
        self._answer_all(self._waiting, self._methods)

    def exchange_files(self) -> None:
        """The thread that sends and receives files, so that the viewport does not wait for them."""
        self._answer_all(self._waiting_for_files, Exchange().methods)

    def _answer_all(self, waiting: queue.SimpleQueue[dict[str, Any]], methods: Mapping[str, Method]) -> NoReturn:
        while True:
            message = waiting.get()
            method = methods.get(message.get("method", ""))
            if method is None:
                sentence = f"The worker has no method “{message.get('method')}”: update Effigy."
                self._refuse(message, UNKNOWN_METHOD, sentence)
            else:
                self._answer(message, method)

    def _answer(self, message: dict[str, Any], method: Method) -> None:
        try:
            values = read_inline(message.get("params") or {})
            result = method(Parameters(values, message["method"]))
            if "id" in message:
                self._channel.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
        except EffigyError as error:
            self._refuse(message, REFUSED, str(error))
        except MemoryError:
            self._refuse(message, REFUSED, "There is not enough memory: choose a smaller image, or close programs.")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            sentence = (
                f"The worker could not answer {message.get('method')} because of a defect in Effigy "
                f"({type(error).__name__}: {error}); its log holds the details."
            )
            self._refuse(message, DEFECT, sentence, traceback.format_exc())

    def _refuse(self, message: dict[str, Any], code: int, sentence: str, data: str | None = None) -> None:
        error = {"code": code, "message": sentence} | ({"data": data} if data else {})
        self._channel.send({"jsonrpc": "2.0", "id": message.get("id"), "error": error})

    def _hello(self, parameters: Parameters) -> WorkerInfo:
        parameters.allow_only("arrays")
        parameters.text("arrays", "files", choices=("files", "inline"))
        try:
            import torch
        except ImportError:
            # The worker still answers, because `doctor` must be reachable to report this.
            torch_version = device = None
        else:
            torch.set_num_threads(max(1, min(os.cpu_count() or 1, MAX_THREADS)))
            # Whether a GPU is usable takes seconds to find out, and `hello` is answered at once.
            torch_version, device = torch.__version__, None if torch.cuda.is_available() else "cpu"
        return WorkerInfo(
            schema=SCHEMA,
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            folders=[] if self._channel.arrays.inline else self._channel.arrays.folders,
            torch=torch_version,
            device=device,
        )

    def _pose(self, parameters: Parameters, method_of: Callable[[Posing], Method]) -> Any:
        """Answer a request about avatars. If the GPU fails, this request and all later ones are answered by the CPU.
        A request that the CPU cannot answer either has another cause, and later ones are answered by the GPU again.
        """
        posing = self._load_posing()
        try:
            return method_of(posing)(parameters)
        except RuntimeError as error:
            from ..devices import give_up_cuda, take_cuda_back

            reason = give_up_cuda(error)
            if reason is None:
                raise
        posing.close_avatars()
        try:
            result = method_of(posing)(parameters)
        except (RuntimeError, MemoryError):
            take_cuda_back()
            posing.close_avatars()
            raise
        # Blender shows the worker's log in its console.
        print(f"{reason} Avatars are now posed and drawn on the CPU.", file=sys.stderr, flush=True)
        return result

    def _load_posing(self) -> Posing:
        if self._posing is None:
            try:
                from .posing import Posing
            except ImportError as error:
                raise EffigyError(f"The backend's Python lacks {error.name}: install the backend again.") from error
            self._posing = Posing()
        return self._posing


# `rig_data` is imported when the first of these methods is called, so that `hello` is answered at once.


def _head_rig(parameters: Parameters) -> Any:
    from .rig_data import head_rig

    return head_rig(parameters)


def _remember_head(parameters: Parameters) -> Any:
    from .rig_data import remember_file

    return remember_file(parameters)


def _read_track(parameters: Parameters) -> Any:
    from .rig_data import read_track

    return read_track(parameters)


def _read_capture(parameters: Parameters) -> Any:
    from .rig_data import read_capture

    return read_capture(parameters)
