"""Docstrings of public functions and classes: they are there, have a subject, and name the arguments."""

import ast
import re
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "osjax").rglob("*.py"))
VERB = {"add_options", "run"}  # of the modules of osjax/cli; explained once, in `__main__`

# A first line with one of these ahead leaves the reader to find out what it is about.
DANGLING = ("Of", "That", "Those", "These", "From", "By", "With", "For", "To", "The same", "Same", "It", "They", "Its")
# Names that say all by the house's alphabet (`osjax/types.py`), or by the language.
SUFFIXED = re.compile(r"(^[BTHWCNMSDhd]$)|(_[BTHWCNMSDFLAhdrqI0-9]+$)")
PLAIN = {"self", "cls", "cfg", "module", "params", "key", "dtype", "name", "mesh", "x", "eps", "args", "kwargs"}
LEAST = 3  # arguments, from which each must be named


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST, ast.ClassDef | None]]:
    """(qualified name, definition, class around it) of all without an underscore at any level."""

    def inside(body, prefix, owner):
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name[0] == "_":
                continue
            if any(getattr(d, "id", "") == "overload" for d in node.decorator_list):
                continue  # the function behind its overloads has the docstring
            yield prefix + node.name, node, owner
            if isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{prefix}{node.name}.", node)

    yield from inside(tree.body, "", None)


def problems(source: str, explained: Set[str] = frozenset()) -> list[str]:
    """What is wrong with the prose of a module, one line each. explained: functions that need no docstring there."""
    out, tree = [], ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(stores(child, "found") for child in ast.walk(node)):
            out.append(f"{node.name} has a local called found, which does not say what it holds")
    for name, node, owner in public(tree):
        text = ast.get_docstring(node)
        if text is None:
            if not says_itself(node, owner) and name not in explained:
                out.append(f"{name} has no docstring")
            continue
        first = text.splitlines()[0]
        if re.match(rf"({'|'.join(DANGLING)})\b", first) or begins_with_a_field(node, first):
            out.append(f"{name} begins without a subject: {first}")
        out += [f"{name} does not name its argument {arg}" for arg in unnamed(node, text, owner, tree)]
    return out


def stores(node: ast.AST, name: str) -> bool:
    """Whether a node gives a variable of this name its value."""
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)


def says_itself(node: ast.AST, owner: ast.ClassDef | None) -> bool:
    """A property or a short method of a class that has a docstring, whose name and types tell all."""
    if owner is None or isinstance(node, ast.ClassDef) or ast.get_docstring(owner) is None:
        return False
    is_property = any(getattr(d, "id", getattr(d, "attr", "")) in ("property", "setter") for d in node.decorator_list)
    return is_property or len(arguments(node)) < 2


def begins_with_a_field(node: ast.AST, first: str) -> bool:
    """Whether the docstring explains a field or an argument before it has said what they are of."""
    fields = [getattr(n.target, "id", "") for n in node.body if isinstance(n, ast.AnnAssign)]
    names = re.match(r"([\w, ]+):", first)
    return names is not None and bool(set(names[1].split(", ")) & {*fields, *arguments(node)})


def arguments(node: ast.AST) -> list[str]:
    """Names of a function's own arguments; none of a class, whose docstring names fields as it likes."""
    if isinstance(node, ast.ClassDef):
        return []
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in given if a.arg not in ("self", "cls")]


def unnamed(node: ast.AST, text: str, owner: ast.ClassDef | None, module: ast.Module) -> list[str]:
    """Arguments of which neither the docstring nor their own name says what they are.

    A class's docstring counts for its methods. A module's counts where it explains a name that all its functions share,
    before a colon at the beginning of a line.
    """
    names = arguments(node)
    if len(names) < LEAST:
        return []
    shared = "\n".join(re.findall(r"^\s*([\w, ]+):", ast.get_docstring(module) or "", re.MULTILINE))
    known = "\n".join([text, ast.get_docstring(owner) or "" if owner else "", shared])
    return [
        name
        for name in names
        if name not in PLAIN and not SUFFIXED.search(name) and not re.search(rf"\b{re.escape(name)}\b", known)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_have_docstrings_with_a_subject_that_name_every_argument(path):
    assert problems(path.read_text(), VERB if path.parent.name == "cli" else frozenset()) == []


def test_the_two_functions_of_every_verb_are_explained_in_one_place():
    told = ast.get_docstring(ast.parse((ROOT / "osjax" / "__main__.py").read_text()))
    assert all(name in told for name in ("add_options(parser)", "run(cfg, args)", "cfg:", "args:"))


def test_only_the_functions_of_a_verb_need_no_docstring_of_their_own():
    source = "def run(cfg, args): ...\ndef report(cfg): ..."
    assert problems(source, VERB) == ["report has no docstring"]
    assert problems(source) == ["run has no docstring", "report has no docstring"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(): ...", "f has no docstring"),
        ("class A:\n    '''A thing.'''\n    def f(self, a, b): ...", "A.f has no docstring"),
        ("def f():\n    '''Of a thing.'''", "f begins without a subject"),
        ("def f():\n    '''The same of every clip.'''", "f begins without a subject"),
        ("class A:\n    '''a, b: numbers.'''\n    a: int\n    b: int", "A begins without a subject"),
        ("def f(a, b, c):\n    '''A sum of a and c.'''", "f does not name its argument b"),
        ("def f(a):\n    '''A sum.'''\n    found = a + 1\n    return found", "f has a local called found"),
        ("def f(x_BTHWC, a, b, c):\n    '''A sum of a and b.'''", "f does not name its argument c"),
        ("'''Sums of a b c, as others do.'''\ndef f(a, b, c):\n    '''A sum of a and b.'''", "f does not name"),
    ],
)
def test_prose_that_says_too_little_is_found(source, says):
    (problem,) = problems(source)
    assert problem.startswith(says)


@pytest.mark.parametrize(
    "source",
    [
        "def _f(): ...",
        "def f(x_BTHWC, t_B, cfg):\n    '''Whether the sum is positive.'''",
        "def f(a, b):\n    '''Offset of two things.'''",
        "'''Sums.\n\na, c: numbers.'''\ndef f(a, b, c):\n    '''Whether b divides the sum.'''",
        "class A:\n    '''A thing.'''\n    @property\n    def size(self): ...",
    ],
)
def test_prose_that_says_enough_is_left_alone(source):
    assert problems(source) == []
