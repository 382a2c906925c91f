"""The parser of the command line, generated from the requests' declarations.

argparse splits the words and prints help. The values are checked and converted by `read_request`, as the worker does
it, so that both report an error with the same sentence. Errors of either are one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Final, NoReturn

from ..errors import EffigyError
from .parameters import Parameters
from .request_fields import Request, field_types, parameter_name, parameter_names, read_request, spec_of, takes_many
from .requests import REQUESTS

FAILED: Final = 2
"""Exit code of a command that was refused or failed."""
SERVE: Final = "serve"
"""The one command without a request: it turns the process into the worker."""


def read_arguments(arguments: Sequence[str] | None = None) -> Request | None:
    """The request that these words ask for (default: the program's own), or None for `serve`; exits on an error."""
    parser = _make_parser()
    chosen, unknown = parser.parse_known_args(arguments)
    command: _Parser = chosen.command_parser
    request_class: type[Request] | None = chosen.request_class
    if request_class and not any(word.startswith("-") for word in unknown):
        unknown = _shared_out(request_class, chosen, unknown)
    try:
        values = {} if request_class is None else _values_of(request_class, chosen)
        parameters = Parameters(values, chosen.command, absolute_paths=False)
        _refuse_unknown(command, parameters, unknown, request_class)
        return None if request_class is None else read_request(request_class, parameters)
    except EffigyError as error:
        command.refuse(str(error))


def _shared_out(request_class: type[Request], chosen: argparse.Namespace, unknown: list[str]) -> list[str]:
    """Share out the positional words anew where one argument takes several: `train A B --size 96 AVATAR`.

    argparse gives all words before an option to the arguments at once, and knows no place for those after it. Returns
    what is left.
    """
    names = [each.name for each in fields(request_class) if spec_of(each).positional]
    several = next((name for name in names if takes_many(request_class, name)), None)
    if several is None or not unknown:
        return unknown
    after = names[names.index(several) + 1 :]
    words = [*getattr(chosen, several), *(getattr(chosen, name) for name in after), *unknown]
    split = len(words) - len(after)
    for name, value in zip((several, *after), (words[:split], *words[split:]), strict=True):
        setattr(chosen, name, value)
    return []


def _values_of(request_class: type[Request], chosen: argparse.Namespace) -> dict[str, Any]:
    """The values as a request to the worker would carry them, by parameter name."""
    types = field_types(request_class)
    values = {}
    for request_field in fields(request_class):
        value = getattr(chosen, request_field.name)
        if isinstance(value, str) and types[request_field.name] in (int, float):
            value = _as_number(value)
        values[parameter_name(request_field)] = value
    return values


def _as_number(text: str) -> int | float | str:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    # Not a number: the check that follows says so.
    return text


def _refuse_unknown(
    command: _Parser, parameters: Parameters, unknown: list[str], request_class: type[Request] | None
) -> None:
    for word in unknown:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].partition("=")[0].replace("-", "_")
            Parameters(parameters.values | {name: True}, parameters.context).allow_only(
                *(parameter_names(request_class) if request_class else ())
            )
    if unknown:
        command.error(f"unrecognized arguments: {' '.join(unknown)}")


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.required_options: list[argparse.Action] = []

    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print its usage as well."""
        self.refuse(f"{message[:1].upper()}{message[1:]}")

    def refuse(self, sentence: str) -> NoReturn:
        self.exit(FAILED, f"{sentence.rstrip('.')} (see `{self.prog} --help`).\n")

    def format_help(self) -> str:
        # They are optional for argparse, because the request reports what is missing; its usage line says so only here.
        for action in self.required_options:
            action.required = True
        return super().format_help()


def _make_parser() -> _Parser:
    parser = _Parser(
        prog="python -m backend", description="From a video of a person to a head avatar and its rendered images."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for request_class in REQUESTS:
        command = subparsers.add_parser(request_class.command, help=request_class.summary)
        command.set_defaults(request_class=request_class, command_parser=command)
        _add_fields(command, request_class)
    serve = subparsers.add_parser(SERVE, help="run the worker, which answers Blender's requests on stdin and stdout")
    serve.set_defaults(request_class=None, command_parser=serve)
    return parser


def _add_fields(command: _Parser, request_class: type[Request]) -> None:
    types = field_types(request_class)
    for request_field in fields(request_class):
        spec = spec_of(request_field)
        name, help_text = request_field.name, spec.description
        if default := _default_in_words(request_field):
            help_text += f" (default: {default})"
        if spec.positional:
            count: dict[str, Any] = {}
            if request_field.default is not MISSING:
                count["nargs"] = "?"
            elif takes_many(request_class, name):
                count["nargs"] = "+"
            action = command.add_argument(name, metavar=spec.metavar, help=help_text, **count)
            # The request reports a missing value, with the worker's sentence.
            action.required = False
        elif types[name] is bool:
            command.add_argument(_option_name(name), action="store_true", help=help_text)
        else:
            metavar = "{" + ",".join(spec.choices) + "}" if spec.choices else spec.metavar
            action = command.add_argument(_option_name(name), metavar=metavar, help=help_text)
            if request_field.default is MISSING:
                command.required_options.append(action)


def _option_name(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _default_in_words(request_field: Field[Any]) -> str | None:
    default = request_field.default
    if default is MISSING or default is None or isinstance(default, bool):
        return spec_of(request_field).default_in_words
    return f"{default:g}" if isinstance(default, float) else str(default)
