"""The worker: answers Blender's requests over stdio until stdin closes.

    hello          {arrays: files | inline, folders}    → what this worker is; `folders`: the client's, for arrays in
                                                          files (`array_files`)
    doctor         {}                                   → {rows: [[what, state, sentence], …]}
    head.rig       {head, identity}                     → all that a rig is built from (`rig_data.HeadRig`)
    head.remember  {file}                               → {name, fingerprint} of a head model that others will need
    track.read     {path}                               → the fields of a `Track`
    capture.read   {path}                               → crop, frame numbers, rate, landmarks, source of a `Capture`
    avatar.open    {path}                               → {avatar: its key, info}
    avatar.splats  {avatar, pose, view | direction, anchors} → means, quaternions, scales, opacities, colors (`posing`)
    avatar.distance {avatar, pose}                      → {distance} of a face from those that the clip has filmed
    avatar.export  {subjects, view | direction, axes, path} → {gaussians}, and a file of them at `path`
    avatar.render  {subjects: [{avatar, pose, holdout, labels}], camera, enhanced, parts} → color, alpha, depth, hole,
                                                          parts
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
from .array_files import ArrayFiles, read_inline
from .exchange import Exchange
from .jobs import Jobs
from .messages import NoMessage, Request, read_request
from .parameters import Parameters
from .protocol import DEFECT, INVALID, REFUSED, SCHEMA, UNKNOWN_METHOD, Channel

if TYPE_CHECKING:
    from .posing import Posing

MAX_THREADS: Final = 8
"""PyTorch's threads: the networks are small, and more threads than this wait for one another."""
MAX_TOO_LARGE: Final = 3
"""Requests in a row that are too large for the GPU's memory, after which it is no longer tried: another program may
have taken the memory, and each try costs the time to load the avatar anew."""
FAILED: Final = 1
"""Exit code of a worker that cannot go on because of a defect."""
LONGEST_REASON: Final = 500
"""Characters of an exception's text in a sentence."""

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
    torch: str | None
    """Version of PyTorch; None where it is not installed."""
    device: str | None
    """`cpu` where PyTorch has no GPU. None without PyTorch, and where there is a GPU: whether it is usable is found out
    when it is first needed, and `avatar.open` answers the device in any case."""


def serve() -> None:
    """Run the worker. Never returns: the process ends when stdin closes."""
    worker = _Worker(Channel(ArrayFiles()))
    for work in (worker.read, worker.exchange_files):
        threading.Thread(target=_end_if_it_fails, args=(work,), daemon=True).start()
    _end_if_it_fails(worker.work)


def _end_if_it_fails(work: Callable[[], None]) -> None:
    """Run one of the worker's threads. If it fails, requests would wait for ever: the process ends, which the client
    notices and says. Also where nobody reads what stderr says any more: without its reading thread, a worker whose
    connection was lost would stay on the other machine for ever.
    """
    try:
        work()
    except BaseException:
        try:
            traceback.print_exc(file=sys.stderr)
        finally:
            _end(FAILED)


def _end(code: int) -> NoReturn:
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._waiting_for_files: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._jobs = Jobs(channel)
        self._posing: Posing | None = None
        self._too_large_in_a_row = 0
        """Requests that the GPU's memory was not enough for, without one in between that it was enough for."""
        self._methods: dict[str, Method] = {
            "hello": self._hello,
            "head.rig": _head_rig,
            "head.remember": _remember_head,
            "track.read": _read_track,
            "capture.read": _read_capture,
            "avatar.open": lambda parameters: self._pose(parameters, lambda posing: posing.open),
            "avatar.splats": lambda parameters: self._pose(parameters, lambda posing: posing.splats),
            "avatar.distance": lambda parameters: self._pose(parameters, lambda posing: posing.distance),
            "avatar.export": lambda parameters: self._pose(parameters, lambda posing: posing.export),
            "avatar.render": lambda parameters: self._pose(parameters, lambda posing: posing.render),
        }

    def read(self) -> None:
        """The reading thread. It ends the process, whatever the other threads are doing."""
        try:
            for request in self._channel.messages(read_request):
                if isinstance(request, NoMessage):
                    sentence = f"The worker got a request that is not valid ({request}): update Effigy."
                    self._refuse(request.number, INVALID, sentence)
                else:
                    self._receive(request)
        finally:
            self._channel.arrays.close()
        _end(0)

    def _receive(self, request: Request) -> None:
        match request.method:
            case "hello":
                # Done before anything else is answered, jobs included.
                if self._answer(request, self._agree_on_arrays, only_errors=True):
                    self._waiting.put(request)
            case "job.start":
                self._answer(request, self._jobs.start)
                self._jobs.forward_events()
            case "job.cancel":
                self._answer(request, self._jobs.cancel)
            case "doctor":
                self._jobs.examine(lambda outcome: self._answer(request, lambda _: outcome()))
            case method if method.startswith("file."):
                self._waiting_for_files.put(request)
            case _:
                self._waiting.put(request)

    def work(self) -> None:
        """The main thread: handles one request after the other."""
        self._answer_all(self._waiting, self._methods)

    def exchange_files(self) -> None:
        """The thread that sends and receives files, so that the viewport does not wait for them."""
        self._answer_all(self._waiting_for_files, Exchange().methods)

    def _answer_all(self, waiting: queue.SimpleQueue[Request], methods: Mapping[str, Method]) -> NoReturn:
        while True:
            request = waiting.get()
            method = methods.get(request.method)
            if method is None:
                sentence = f"The worker has no method “{request.method[:80]}”: update Effigy."
                self._refuse(request.number, UNKNOWN_METHOD, sentence)
            else:
                self._answer(request, method)

    def _answer(self, request: Request, method: Method, *, only_errors: bool = False) -> bool:
        """Carry a request out and send its result or its error; with `only_errors`, no result. Returns whether it
        succeeded.
        """
        number = request.number
        try:
            result = method(Parameters(read_inline(request.params), request.method))
            if number is not None and not only_errors:
                self._channel.send({"jsonrpc": "2.0", "id": number, "result": result})
        except EffigyError as error:
            self._refuse(number, REFUSED, str(error))
        except MemoryError:
            self._refuse(number, REFUSED, "There is not enough memory: choose a smaller image, or close programs.")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            sentence = (
                f"The worker could not answer {request.method} because of a defect in Effigy "
                f"({type(error).__name__}: {str(error)[:LONGEST_REASON]}); its log holds the details."
            )
            self._refuse(number, DEFECT, sentence, traceback.format_exc())
        else:
            return True
        return False

    def _refuse(self, number: int | None, code: int, sentence: str, data: str | None = None) -> None:
        error = {"code": code, "message": sentence} | ({"data": data} if data else {})
        self._channel.send({"jsonrpc": "2.0", "id": number, "error": error})

    def _agree_on_arrays(self, parameters: Parameters) -> None:
        parameters.allow_only("arrays", "folders")
        arrays = self._channel.arrays
        if parameters.text("arrays", "files", choices=("files", "inline")) == "inline":
            arrays.inline = True
        elif parameters.has("folders"):
            arrays.use(parameters.values["folders"])

    def _hello(self, parameters: Parameters) -> WorkerInfo:
        del parameters
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
            torch=torch_version,
            device=device,
        )

    def _pose(self, parameters: Parameters, method_of: Callable[[Posing], Method]) -> Any:
        """Answer a request about avatars. If the GPU fails, this request is answered by the CPU, and all later ones as
        well. Only this one if it was too large for the GPU's memory, unless several in a row were. A request that the
        CPU cannot answer either has another cause, and later ones are answered by the GPU again.
        """
        posing = self._load_posing()
        try:
            result = method_of(posing)(parameters)
        except RuntimeError as error:
            from ..devices import give_up_cuda, is_out_of_memory, take_cuda_back

            too_large = is_out_of_memory(error)
            reason = give_up_cuda(error)
            if reason is None:
                raise
        else:
            self._too_large_in_a_row = 0
            return result
        self._too_large_in_a_row += too_large
        only_this = too_large and self._too_large_in_a_row < MAX_TOO_LARGE
        posing.close_avatars()
        try:
            result = method_of(posing)(parameters)
        except (RuntimeError, MemoryError):
            take_cuda_back()
            posing.close_avatars()
            raise
        if only_this:
            take_cuda_back()
            posing.close_avatars()
        # Blender shows the worker's log in its console.
        consequence = "This was done on the CPU." if only_this else "Avatars are now posed and drawn on the CPU."
        print(f"{reason} {consequence}", file=sys.stderr, flush=True)
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
