"""The one-line breaks that a source file offers: mutmut's operators where they fit, and a few of ours in their form.

An operator is a function that takes a libcst node and yields nodes to put in its place. Of mutmut's those are used that
make a program which still runs and is wrong; replacing a value by None is noticed by the next line, whatever the tests.


Left out is what no test on this machine can or should see. The rules are general and name no line:

- annotations, docstrings, imports, the text of messages and statements that only report something;
- speed and memory: constants with such names (`SPEED_ONLY`), numbers of threads (`THREADS`), and keyword arguments
  that change no result (`NO_RESULT`);
- branches for other operating systems (`PLATFORM`);
- `device=`: the tests run where the processor is the only device, which is also the default;
- `dtype=torch.float32` in a call that makes float32 without it (`FLOAT32_ANYWAY`);
- the order of two arguments that may stand in either order (`SYMMETRIC`);
- floating-point numbers from `LARGE` on raised by one;
- the default of a parameter that its function does not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

SPEED_ONLY: Final = re.compile(
    r"_?(CHUNK|BATCH|LANES|BLOCK|MAX_FRAMES)\w*|\w*(SECONDS|PATIENCE|TIMEOUT|PER_STEP|THREADS)\w*"
)
"""Names of constants that change how long something takes or how much memory it needs, and no result."""
MESSAGES: Final = m.Call(
    func=m.Name("print") | m.Attribute(attr=m.MatchIfTrue(lambda attr: attr.value in MESSAGE_METHODS))
)
MESSAGE_METHODS: Final = {"message", "update", "warn", "warning", "info", "debug", "add_argument", "add_parser"}

PLATFORM: Final = m.Comparison(
    left=m.Attribute(value=m.Name("os") | m.Name("sys"), attr=m.Name("name") | m.Name("platform"))
)
"""Whether this is Windows or a Mac: what would be done there cannot be seen here."""
NO_RESULT: Final = {
    *("strict", "flush", "daemon", "nogil", "cache", "exist_ok", "parents", "ndmin", "stacklevel"),
    *("device", "max_workers", "thread_name_prefix", "refresh_per_second", "bar_width"),
}
"""Keyword arguments that change no result of a correct program on this machine."""
PROCESSORS: Final = m.Call(func=m.Attribute(value=m.Name("os"), attr=m.Name("cpu_count")))
THREADS: Final = m.Call(
    func=m.Name("ThreadPoolExecutor") | m.Attribute(attr=m.Name("set_num_threads") | m.Name("set_num_interop_threads"))
)
"""How many threads work at the same thing: results are the same with one."""
FLOAT32_ANYWAY: Final = m.Call(
    func=m.Attribute(
        value=m.Name("torch"),
        attr=m.Name("zeros") | m.Name("ones") | m.Name("empty") | m.Name("eye") | m.Name("rand") | m.Name("randn"),
    )
)
SYMMETRIC: Final = m.Call(
    func=m.Name("min")
    | m.Name("max")
    | m.Name("suppress")
    | m.Attribute(attr=m.OneOf(*(m.Name(name) for name in ("minimum", "maximum", "hypot", "isclose", "swapaxes"))))
) | m.Call(func=m.Attribute(attr=m.Name("transpose")), args=[m.Arg(), m.Arg()])
"""Calls whose result does not depend on the order of their arguments. `transpose` with two is torch's, which exchanges
two axes; numpy's takes all axes of an array."""
LARGE: Final = 1e6
"""One more is a millionth of such a number at most, which stands for infinity. Whole numbers may be exact codes."""
FLOAT32: Final = m.Arg(keyword=m.Name("dtype"), value=m.Attribute(value=m.Name("torch"), attr=m.Name("float32")))


@dataclass(frozen=True)
class Mutation:
    """One node of a file replaced by another."""

    line: int
    """Of the replaced node, counted from 1."""
    lines: range
    """The lines of the statement around it, or of the compound statement's header."""
    kind: str
    original: cst.CSTNode
    replacement: cst.CSTNode
    module: cst.Module

    def text(self) -> str:
        """The whole file with the replacement."""
        return self.module.deep_replace(self.original, self.replacement).code


def raise_number(node: cst.BaseNumber) -> Iterator[cst.CSTNode]:
    if not isinstance(node, cst.Float) or node.evaluated_value < LARGE:
        yield from mutators.operator_number(node)


def drop_keyword_argument(node: cst.Call) -> Iterator[cst.Call]:
    for index, argument in enumerate(node.args):
        if m.matches(node, FLOAT32_ANYWAY) and m.matches(argument, FLOAT32):
            continue
        if argument.keyword is not None and argument.keyword.value not in NO_RESULT and len(node.args) > 1:
            yield node.with_changes(args=[*node.args[:index], *node.args[index + 1 :]])


def swap_arguments(node: cst.Call) -> Iterator[cst.Call]:
    if m.matches(node, SYMMETRIC):
        return
    positional = [argument for argument in node.args if argument.keyword is None and argument.star == ""]
    if len(positional) >= 2 and not positional[0].value.deep_equals(positional[1].value):
        first, second = node.args[0], node.args[1]
        if first in positional and second in positional:
            swapped = [first.with_changes(value=second.value), second.with_changes(value=first.value)]
            yield node.with_changes(args=[*swapped, *node.args[2:]])


def remove_statement(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    removable = m.Expr(value=m.Call()) | m.AugAssign() | m.Assign(targets=[m.AssignTarget(target=m.Subscript())])
    if len(node.body) == 1 and m.matches(node.body[0], removable):
        yield node.with_changes(body=[cst.Pass()])


def return_none(node: cst.Return) -> Iterator[cst.Return]:
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"))


def negate_condition(node: cst.If | cst.While | cst.IfExp) -> Iterator[cst.CSTNode]:
    if not m.matches(node.test, m.UnaryOperation(operator=m.Not()) | m.NamedExpr() | PLATFORM):
        test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=test))


OPERATORS: Final[tuple[tuple[str, type | tuple[type, ...], Callable[[Any], Iterable[cst.CSTNode]]], ...]] = (
    ("number", cst.BaseNumber, raise_number),
    ("boolean", cst.Name, mutators.operator_name),
    ("not dropped", cst.UnaryOperation, mutators.operator_remove_unary_ops),
    ("keyword", cst.CSTNode, mutators.operator_keywords),
    ("operator", cst.CSTNode, mutators.operator_swap_op),
    ("string method", cst.Call, mutators.operator_symmetric_string_methods_swap),
    ("argument dropped", cst.Call, drop_keyword_argument),
    ("arguments swapped", cst.Call, swap_arguments),
    ("statement removed", cst.SimpleStatementLine, remove_statement),
    ("return None", cst.Return, return_none),
    ("condition negated", (cst.If, cst.While), negate_condition),
)


def mutations_of(source: str) -> list[Mutation]:
    """Every mutation that a file offers, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = _Finder(wrapper.module)
    wrapper.visit(finder)
    return sorted(finder.found, key=lambda mutation: mutation.line)


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.module, self.found = module, []
        self._statements: list[range] = []
        self._unread: set[int] = set()
        """The `id` of each default of a parameter that its function does not read."""

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_out(node) or id(node) in self._unread:
            return False
        if isinstance(node, cst.FunctionDef):
            self._unread |= set(map(id, _unread_defaults(node)))
        span = self.get_metadata(PositionProvider, node, None)
        if isinstance(node, cst.SimpleStatementLine):
            self._statements.append(range(span.start.line, span.end.line + 1))
        if span is not None:
            own = range(span.start.line, span.end.line + 1)
            if isinstance(node, cst.If | cst.While):
                test = self.get_metadata(PositionProvider, node.test)
                own = range(test.start.line, test.end.line + 1)
            lines = self._statements[-1] if self._statements else own
            for kind, of, operator in OPERATORS:
                if isinstance(node, of):
                    self.found += [
                        Mutation(own.start, lines, kind, node, replacement, self.module)
                        for replacement in operator(node)
                    ]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.SimpleStatementLine) and not _is_left_out(original_node):
            self._statements.pop()


def _unread_defaults(function: cst.FunctionDef) -> Iterator[cst.BaseExpression]:
    read = {name.value for name in m.findall(function.body, m.Name()) if isinstance(name, cst.Name)}
    for parameter in m.findall(function.params, m.Param()):
        if isinstance(parameter, cst.Param) and parameter.default is not None and parameter.name.value not in read:
            yield parameter.default


def _is_left_out(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Raise | cst.Assert | cst.Import | cst.ImportFrom):
        return True
    if isinstance(node, cst.Comparison):
        return m.matches(node, PLATFORM)
    if isinstance(node, cst.FormattedString | cst.SimpleString | cst.ConcatenatedString):
        return True
    if isinstance(node, cst.Arg):
        return node.keyword is not None and node.keyword.value in NO_RESULT
    if isinstance(node, cst.If):
        # Also a condition on which only something is reported.
        only_reports = m.IndentedBlock(body=[m.SimpleStatementLine(body=[m.Expr(value=MESSAGES)])])
        return m.matches(node.test, m.Name("TYPE_CHECKING")) or (
            node.orelse is None and m.matches(node.body, only_reports)
        )
    if isinstance(node, cst.Assign):
        if m.findall(node.value, PROCESSORS):
            return True
        return any(
            isinstance(target.target, cst.Name)
            and (target.target.value == "__all__" or SPEED_ONLY.fullmatch(target.target.value))
            for target in node.targets
        )
    if isinstance(node, cst.AnnAssign):
        return isinstance(node.target, cst.Name) and bool(SPEED_ONLY.fullmatch(node.target.value))
    if isinstance(node, cst.SimpleStatementLine):
        # A statement that only reports something goes as a whole.
        return len(node.body) == 1 and m.matches(node.body[0], m.Expr(value=MESSAGES))
    return isinstance(node, cst.Call) and m.matches(node, MESSAGES | THREADS)
