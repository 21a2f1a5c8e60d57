"""Sizes that keep the code readable: lines of a file and of a function, arguments of a function."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "osjax").rglob("*.py"))}
FILE, MEDIAN = 350, 100  # lines that a file, and the median file, stay below
FUNCTION = 80  # lines that a function stays below, its decorators and docstring included
ARGUMENTS = 8  # at most; fields of dataclasses are no arguments of a function


def functions(source: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(qualified name, definition) of all functions of a module, nested ones and methods too."""

    def inside(node: ast.AST, prefix: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not isinstance(child, ast.ClassDef):
                    yield prefix + child.name, child
                yield from inside(child, f"{prefix}{child.name}.")
            else:
                yield from inside(child, prefix)

    yield from inside(ast.parse(source), "")


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first decorator to its end."""
    return node.end_lineno - min([node.lineno, *(d.lineno for d in node.decorator_list)]) + 1


def count_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of arguments that a caller gives; self and cls are none, *args and **kwargs one each."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    rest = [arg for arg in (node.args.vararg, node.args.kwarg) if arg]
    return len([arg for arg in given if arg.arg not in ("self", "cls")]) + len(rest)


def too_long(source: str) -> list[str]:
    """Functions of a module that do not stay below FUNCTION lines."""
    return [f"{name}: {lines(node)} lines" for name, node in functions(source) if lines(node) >= FUNCTION]


def too_wide(source: str) -> list[str]:
    """Functions of a module that take more than ARGUMENTS; the call of a flax module takes what its model is given."""
    return [
        name
        for name, node in functions(source)
        if count_arguments(node) > ARGUMENTS and not (name.endswith(".__call__") and is_compact(node))
    ]


def is_compact(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is decorated as the body of a flax module."""
    return any(getattr(d, "attr", getattr(d, "id", "")) == "compact" for d in node.decorator_list)


def test_every_file_is_short():
    assert {name: n for name, text in MODULES.items() if (n := len(text.splitlines())) >= FILE} == {}


def test_the_median_file_is_short():
    assert statistics.median(len(text.splitlines()) for text in MODULES.values()) < MEDIAN


@pytest.mark.parametrize("name", MODULES)
def test_every_function_is_short_and_takes_few_arguments(name):
    assert too_long(MODULES[name]) == []
    assert too_wide(MODULES[name]) == []


def test_functions_that_are_too_long_or_too_wide_are_found():
    body = "\n".join(["        pass"] * (FUNCTION - 1))
    assert too_long(f"class A:\n    def f(self):\n{body}") == [f"A.f: {FUNCTION} lines"]
    assert too_long(f"def f():\n    def g():\n{body}") == [f"f: {FUNCTION + 1} lines", f"f.g: {FUNCTION} lines"]
    assert too_long(f"class A:\n    @d\n    def f(self):\n{body}") == [f"A.f: {FUNCTION + 1} lines"]
    assert too_long(f"class A:\n    def f(self):\n{body[:-13]}") == []
    assert too_wide("def f(a, b, c, d, e, f, g, h, *, i): ...") == ["f"]
    assert too_wide("class A:\n    def f(self, a, b, c, d, e, f, g, h): ...") == []
    assert too_wide("def f(a, b, c, d, e, f, g, h, **rest): ...") == ["f"]


def test_only_the_call_of_a_flax_module_may_take_more():
    call = "def __call__(self, a, b, c, d, e, f, g, h, i): ..."
    assert too_wide(f"class A:\n    @nn.compact\n    {call}") == []
    assert too_wide(f"class A:\n    {call}") == ["A.__call__"]
