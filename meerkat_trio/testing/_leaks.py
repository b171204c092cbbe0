"""What a scenario leaves behind: permits that are not back, channels and resources that are not closed, generators.

Whether something is left behind by mistake can hardly be told from one run: a semaphore may be a signal, a channel may
be meant for the collector. So what an uncancelled run leaves behind too is never held against a cancelled one.
"""

from __future__ import annotations

import ast
import functools
import linecache
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType
from typing import Any, Final, final

import trio

from ._findings import Finding
from ._parked import Labels, caller_frame, short
from ._trio_internals import is_closed_channel, suspended_generators
from ._victims import is_code_of

__all__ = ["Resources", "tracking"]

_CLOSABLE: Final = ("channel", "resource")
_GENERATOR_WARNING: Final = "Async generator "


@final
class Resources:
    """What one run has made that ought to be given back."""

    def __init__(self, own_code: CodeType | None, exempt: frozenset[str], labels: Labels) -> None:
        self._own_code = own_code
        self._exempt = exempt
        self._made: list[tuple[str, Any, str]] = []
        self._labels = labels
        self._closed: dict[int, str] = {}
        self._closed_by_scenario: set[int] = set()
        self._held: set[int] = set()
        self._acquirers: dict[int, set[object]] = {}
        self._signals: set[int] = set()
        self._initial: dict[int, int] = {}
        self.collected_generators: set[str] = set()

    def made(self, kind: str, thing: object) -> None:
        """Note that something was made, and where."""
        frame = caller_frame(3)
        if frame is None:
            return
        site = f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"
        self._made.append((kind, thing, site))
        if kind == "semaphore":
            self._initial[id(thing)] = thing.value  # type: ignore[attr-defined]

    def closed(self, thing: object) -> None:
        """Note that a channel or resource is closed, and by whom."""
        frame = caller_frame(3)
        if frame is not None and is_code_of(self._own_code, frame.f_code):
            self._closed_by_scenario.add(id(thing))
        self._closed.setdefault(id(thing), self._labels.of(trio.lowlevel.current_task()))

    def acquired(self, thing: object) -> None:
        """Note who has a permit, and whether it is the scenario's own code that has to give it back."""
        self._acquirers.setdefault(id(thing), set()).add(trio.lowlevel.current_task())
        frame = caller_frame(4)
        if frame is not None and is_code_of(self._own_code, frame.f_code):
            self._held.add(id(thing))

    def released(self, semaphore: object) -> None:
        """Note that a permit is given back, perhaps by somebody who never had one: then it is a signal."""
        if trio.lowlevel.current_task() not in self._acquirers.get(id(semaphore), ()):
            self._signals.add(id(semaphore))

    def left(self, *, cut: bool) -> list[tuple[str, Finding]]:
        """Return what is left behind, each with a key that is the same in every run.

        Args:
            cut: whether the scenario's own code was cut short, so that what it would have given back itself proves
                nothing.
        """
        found: dict[str, Finding] = {}
        for kind, thing, site in self._made:
            if kind in _CLOSABLE and self._was_to_be_closed_by_nobody(site):
                continue
            if cut and (f"scenario closes {site}" in self._exempt if kind in _CLOSABLE else id(thing) in self._held):
                continue
            verdict = self._verdict(kind, thing)
            if verdict is not None:
                name, text = verdict
                key = f"{name} {site}"
                if key not in self._exempt:
                    found.setdefault(key, Finding(kind=name, message=f"{text}, made at {site}"))
        alive = {
            f"{agen.ag_frame.f_globals['__name__']}.{agen.__qualname__}"  # as Trio calls it in its warning
            for agen in suspended_generators()
            if has_clean_up_ahead(agen)
        }
        for name in sorted(alive | self.collected_generators):
            key = f"leaked generator {name}"
            if key not in self._exempt:
                found.setdefault(
                    key,
                    Finding(
                        kind="leaked generator",
                        message=f"async generator {name} was left suspended: its clean-up runs when it is collected,"
                        " whenever that is; iterate over it inside `async with aclosing(...)`",
                    ),
                )
        return list(found.items())

    def _was_to_be_closed_by_nobody(self, site: str) -> bool:
        """Whether a task that closes such a thing when nobody is cancelled was not even started."""
        end = f" closes what {site} made"
        closers = [key.removesuffix(end) for key in self._exempt if key.endswith(end)]
        return not all(self._labels.is_given(label) for label in closers)

    @property
    def exceptions(self) -> Iterator[str]:
        """Keys of what this run shows to be no leak: semaphores used as signals, and who closes what."""
        for kind, thing, site in self._made:
            if kind == "semaphore" and id(thing) in self._signals:
                yield f"leaked semaphore {site}"
            if id(thing) in self._closed_by_scenario:
                yield f"scenario closes {site}"
            if id(thing) in self._closed:
                yield f"{self._closed[id(thing)]} closes what {site} made"

    def _verdict(self, kind: str, thing: Any) -> tuple[str, str] | None:
        match kind:
            case "lock":
                return ("leaked lock", f"a {type(thing).__name__} is still held") if thing.locked() else None
            case "limiter":
                count = thing.borrowed_tokens
                return ("leaked limiter", f"{count} tokens of a CapacityLimiter are not back") if count else None
            case "semaphore":
                first = self._initial[id(thing)]
                if thing.value == first:
                    return None
                what = "too few" if thing.value < first else "too many"
                return "leaked semaphore", f"{what} permits: a Semaphore of {first} ends with {thing.value}"
            case "channel":
                return None if is_closed_channel(thing) else ("open channel", f"a {type(thing).__name__} is still open")
            case _:
                name = type(thing).__qualname__
                return None if id(thing) in self._closed else ("unclosed resource", f"a {name} was never closed")


@contextmanager
def tracking(current: Callable[[], Resources | None]) -> Iterator[None]:
    """Note what Trio's and the scenario's classes make, for the length of the block."""

    def register(kind: str) -> Callable[[object], None]:
        def note(thing: object) -> None:
            resources = current()
            if resources is not None:
                resources.made(kind, thing)

        return note

    with ExitStack() as stack:
        for kind, cls in (
            ("lock", trio.Lock),
            ("lock", trio.StrictFIFOLock),
            ("limiter", trio.CapacityLimiter),
            ("semaphore", trio.Semaphore),
        ):
            _after(stack, cls, "__init__", register(kind))
            _watch_permits(stack, cls, current)
        for channel in (trio.MemorySendChannel, trio.MemoryReceiveChannel):
            _after(stack, channel, "__attrs_post_init__", register("channel"))
            _watch_close(stack, channel, current)
        _watch_generators(stack, current)
        _watch_resource_classes(stack, current)
        yield


def _watch_resource_classes(stack: ExitStack, current: Callable[[], Resources | None]) -> None:
    base: Any = trio.abc.AsyncResource
    watched: set[type] = set()

    def watch(cls: type) -> None:
        if cls not in watched and not cls.__module__.startswith("trio."):
            watched.add(cls)
            _watch_resource(stack, cls, current)

    todo: list[type] = base.__subclasses__()
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        watch(cls)
    real_hook = base.__init_subclass__

    def init_subclass(cls: type, /, **kwargs: Any) -> None:
        real_hook(**kwargs)
        watch(cls)

    # Classes may also be made inside a run.
    _replace(stack, base, "__init_subclass__", classmethod(init_subclass))


def _replace(stack: ExitStack, cls: Any, name: str, function: Any) -> None:
    inherited = name not in cls.__dict__
    before = getattr(cls, name)
    setattr(cls, name, function)
    stack.callback((lambda: delattr(cls, name)) if inherited else (lambda: setattr(cls, name, before)))


def _after(stack: ExitStack, cls: Any, name: str, note: Callable[[object], None]) -> None:
    real = getattr(cls, name)

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        note(self)

    _replace(stack, cls, name, made)


def _watch_permits(stack: ExitStack, cls: Any, current: Callable[[], Resources | None]) -> None:
    acquire, acquire_nowait, release = cls.acquire, cls.acquire_nowait, cls.release

    def acquired(self: object) -> None:
        resources = current()
        if resources is not None:
            resources.acquired(self)

    async def watched_acquire(self: Any) -> None:
        await acquire(self)
        acquired(self)

    def watched_acquire_nowait(self: Any) -> None:
        acquire_nowait(self)
        acquired(self)

    def watched_release(self: Any) -> None:
        resources = current()
        if resources is not None:
            resources.released(self)
        release(self)

    _replace(stack, cls, "acquire", watched_acquire)
    _replace(stack, cls, "acquire_nowait", watched_acquire_nowait)
    _replace(stack, cls, "release", watched_release)


def _watch_close(stack: ExitStack, channel: Any, current: Callable[[], Resources | None]) -> None:
    close = channel.close

    def watched_close(self: Any) -> None:
        resources = current()
        if resources is not None:
            resources.closed(self)
        close(self)

    _replace(stack, channel, "close", watched_close)


def _watch_resource(stack: ExitStack, cls: Any, current: Callable[[], Resources | None]) -> None:
    init, aclose = cls.__init__, cls.aclose

    def watched_init(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        resources = current()
        if resources is not None and type(self) is cls:
            resources.made("resource", self)

    def watched_aclose(self: Any, *args: Any, **kwargs: Any) -> Any:
        resources = current()
        if resources is not None:
            resources.closed(self)
        return aclose(self, *args, **kwargs)

    _replace(stack, cls, "__init__", watched_init)
    _replace(stack, cls, "aclose", watched_aclose)


def _generator_that_is_collected() -> Any:
    """Return the generator of whose end Trio warns: an argument of the function that does."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and "agen" not in frame.f_locals:
        frame = frame.f_back
    return None if frame is None else frame.f_locals["agen"]


def has_clean_up_ahead(generator: Any) -> bool:
    """Whether a suspended generator is inside a `try` or `with`; if not, closing it does nothing."""
    frame = getattr(generator, "ag_frame", None)
    if frame is None:
        return generator is None
    spans = _guarded_lines(frame.f_code.co_filename)
    return spans is None or any(start <= frame.f_lineno <= end for start, end in spans)


@functools.cache
def _guarded_lines(filename: str) -> tuple[tuple[int, int], ...] | None:
    """Return the first and last lines of the `try` and `with` blocks in functions; None if there is no source."""
    lines = linecache.getlines(filename)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    if not lines:
        return None
    guards = (ast.Try, ast.TryStar, ast.With, ast.AsyncWith)
    return tuple(
        (node.lineno, node.end_lineno or node.lineno)
        for function in ast.walk(tree)
        if isinstance(function, ast.AsyncFunctionDef)
        for node in _inside(function)
        if isinstance(node, guards)
    )


def _inside(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of the functions in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _inside(node)


def _watch_generators(stack: ExitStack, current: Callable[[], Resources | None]) -> None:
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("always", message=_GENERATOR_WARNING, category=ResourceWarning)
    show = warnings.showwarning

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        resources = current()
        text = str(message)
        if text.startswith(_GENERATOR_WARNING) and trio.lowlevel.in_trio_run():
            if resources is not None and has_clean_up_ahead(_generator_that_is_collected()):
                resources.collected_generators.add(text.removeprefix(_GENERATOR_WARNING).split("'")[1])
        else:
            show(message, *args, **kwargs)

    warnings.showwarning = note
