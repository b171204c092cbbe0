"""What the source of the package must not say: nobody writes to a record, and the authority stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import meerkat_trio
from meerkat_trio import authority
from meerkat_trio.authority import _effects, _inputs, _mutator, _row, _state, _values

PACKAGE = Path(meerkat_trio.__file__).parent
LISTENER = PACKAGE / "testing" / "_leaks.py"
"""Replaces methods of Trio's classes for as long as an exploration lasts; it cannot know a record."""
SOURCES = sorted(set(PACKAGE.rglob("*.py")) - {LISTENER})

RECORDS = [
    record
    for module in (_values, _inputs, _effects, _state, _row, _mutator)
    for record in vars(module).values()
    if isinstance(record, type) and attrs.has(record) and record.__module__ == module.__name__
]
FIELDS = {field.name for record in RECORDS for field in attrs.fields(record)}
HANDLES = {"self", "tasks", "waiter"}
"""What holds a handle, never a record, wherever the package says it: a handle's fields are its own business."""
HOT = {"SessionState", "SessionRegion", "DrainRegion", "SupervisorRegion", "PeersRegion", "RequestsRegion", "Step"}


def written(target: ast.expr) -> Iterator[ast.Attribute]:
    """The attributes that an assignment to ``target`` writes to, or writes through."""
    match target:
        case ast.Attribute():
            yield target
        case ast.Subscript(value=value) | ast.Starred(value=value):
            yield from written(value)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from written(part)
        case _:
            pass


def targets(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Assign(targets=several) | ast.Delete(targets=several):
            return several
        case ast.AugAssign(target=one) | ast.AnnAssign(target=one) | ast.For(target=one):
            return [one]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            return [item.optional_vars for item in items if item.optional_vars is not None]
        case _:
            return []


def offences(source: str) -> list[str]:
    """Writes to what may be a record's field."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for target in targets(node):
            for attribute in written(target):
                of_handle = isinstance(attribute.value, ast.Name) and attribute.value.id in HANDLES
                if attribute.attr in FIELDS and not of_handle:
                    found.append(f"{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"setattr", "object.__setattr__", "delattr"}:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_the_records_are_found() -> None:
    assert {record.__name__ for record in RECORDS} > HOT
    assert {"phase", "drain", "obligations", "direct", "generation", "effects", "after"} <= FIELDS


@pytest.mark.parametrize(
    "line",
    [
        "state.drain.phase = 1",
        "step.effects += (1,)",
        "region.obligations[key] = 2",
        "del state.peers.direct[peer_id]",
        "a, state.session.run_id = 1, 2",
        "region.binding: object = 3",
        "for state.drain.mode in (): pass",
        "setattr(state, name, 4)",
        "object.__setattr__(state, 'drain', 5)",
        "self.state.drain.stopping = 6",
    ],
)
def test_a_write_to_a_record_would_be_seen(line: str) -> None:
    assert len(offences(line)) == 1


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_writes_to_a_record(source: Path) -> None:
    assert offences(source.read_text()) == []


def test_who_replaces_methods_knows_no_record() -> None:
    assert "authority" not in LISTENER.read_text()


def test_the_authority_s_own_records_have_no_methods_that_write() -> None:
    for record in RECORDS:
        source = Path(sys.modules[record.__module__].__file__ or "").read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and node.name == record.__name__:
                writes = [a for n in ast.walk(node) for t in targets(n) for a in written(t)]
                assert writes == [], record


def test_records_that_are_not_hot_are_frozen() -> None:
    thawed = {record.__name__ for record in RECORDS if record.__setattr__ is object.__setattr__}
    assert thawed == HOT | {
        "Admit",
        "BeginRun",
        "RunFinished",
        "DrainStarted",
        "DrainExited",
        "StartDrain",
        "SwapDrain",
        "DrainEnded",
    }


IMPURE = ("trio", "outcome", "logging", "random", "socket", "select", "threading", "asyncio", "meerkat_trio._machine")


def test_importing_the_authority_loads_no_shell() -> None:
    code = f"""
import sys
import attrs
before = set(sys.modules)
import meerkat_trio.authority
loaded = set(sys.modules) - before
print(sorted(loaded & {set(IMPURE)!r}))
print(sorted(name for name in loaded if name.startswith('meerkat_trio.') and '.authority' not in name))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n[]\n"


@pytest.mark.parametrize("module", sorted((PACKAGE / "authority").glob("*.py")), ids=lambda path: path.stem)
def test_the_authority_imports_only_itself_attrs_and_a_few_pure_modules(module: Path) -> None:
    allowed = {
        "__future__",
        "attrs",
        "collections.abc",
        "enum",
        "functools",
        "hashlib",
        "typing",
        "unicodedata",
        "uuid",
    }
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Import(names=names):
                assert {name.name for name in names} <= allowed
            case ast.ImportFrom(module=name, level=level):
                assert level == 1 or name in allowed, name
            case _:
                pass


def test_every_public_name_of_the_authority_is_there() -> None:
    assert [name for name in authority.__all__ if not hasattr(authority, name)] == []
    assert len(set(authority.__all__)) == len(authority.__all__)
