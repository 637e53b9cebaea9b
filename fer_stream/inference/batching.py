"""Processes several frames at once, so that each net runs on all of them together: an accelerator needs large batches.

`together` gives each frame a thread. A thread that wants to run a net (`joint`) waits until every other thread waits,
too, or has ended. The last one then runs the nets for all of them: once for each net and each size of input. So the
code of a detector or classifier handles one frame, and needs to know nothing of the others. On a CPU the answer is the
same to the last bit, because each row of a net's output depends on one row of its input only.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Arrays = list[NDArray[Any]]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Compute(Protocol):
    """Runs a net on arrays whose first axis counts the rows; each of its outputs has as many rows."""

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Return the outputs."""
        ...


_here = threading.local()


def together(function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """Return the function's result for each item, each computed in a thread of its own; `joint` runs are combined.

    Raises:
        Exception: that of the first item for which the function raised one; by then, all items have been processed.
    """
    if len(items) == 1:
        return [function(items[0])]
    group = _Group(len(items))
    results: list[Any] = [None] * len(items)
    failures: list[BaseException | None] = [None] * len(items)

    def lane(number: int) -> None:
        _here.group, _here.number = group, number
        try:
            results[number] = function(items[number])
        except BaseException as error:
            failures[number] = error
        finally:
            del _here.group
            group.leave()

    threads = [threading.Thread(target=lane, args=(number,), daemon=True) for number in range(len(items))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        if failure is not None:
            raise failure
    return results


def joint(key: object, compute: Compute, inputs: Sequence[NDArray[Any]]) -> Arrays:
    """Return ``compute(*inputs)``; within `together`, it runs once for all frames that want the same run.

    Args:
        key: names the net and its outputs: runs are combined if their keys, and the types and sizes of their inputs'
            rows are equal.
        compute: runs the net.
        inputs: arrays of as many rows each.

    Raises:
        Exception: what ``compute`` raises for these inputs alone.
    """
    group: _Group | None = getattr(_here, "group", None)
    if group is None:
        return compute(*inputs)
    shapes = tuple((each.dtype, each.shape[1:]) for each in inputs)
    run = _Run(_here.number, (key, shapes), compute, inputs)
    group.join(run)
    if run.failure is not None:
        raise run.failure
    return run.outputs


@dataclass(slots=True, eq=False)
class _Run:
    """A run that a thread waits for."""

    number: int
    """The item's number."""
    key: object
    compute: Compute
    inputs: Sequence[NDArray[Any]]
    outputs: Arrays | Any = None
    failure: Exception | None = None
    over: bool = False

    def alone(self) -> None:
        try:
            self.outputs = self.compute(*self.inputs)
        except Exception as error:
            self.failure = error


class _Group:
    """The threads of one call of `together`."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._computing = threads
        self._waiting: list[_Run] = []

    def join(self, run: _Run) -> None:
        """Wait until a run is over. If every other thread waits, too, carry out all runs first."""
        with self._changed:
            self._waiting.append(run)
            self._computing -= 1
            last = self._computing == 0
        if last:
            self._carry_out()
        else:
            with self._changed:
                self._changed.wait_for(lambda: run.over)

    def leave(self) -> None:
        """Remove a thread that has ended. If every other thread waits, carry out their runs."""
        with self._changed:
            self._computing -= 1
            last = self._computing == 0
        if last:
            self._carry_out()

    def _carry_out(self) -> None:
        """Carry out all runs. No other thread computes meanwhile."""
        runs = sorted(self._waiting, key=lambda run: run.number)
        kinds: dict[object, list[_Run]] = {}
        for run in runs:
            kinds.setdefault(run.key, []).append(run)
        for kind in kinds.values():
            if len(kind) == 1 or not _combine(kind):
                for run in kind:
                    run.alone()
        with self._changed:
            self._waiting = []
            self._computing += len(runs)
            for run in runs:
                run.over = True
            self._changed.notify_all()


def _combine(runs: list[_Run]) -> bool:
    """Run a net once for several runs. If that fails, return ``False``: run one by one, only the faulty ones fail."""
    rows = [len(run.inputs[0]) for run in runs]
    try:
        inputs = [np.concatenate(parts) for parts in zip(*(run.inputs for run in runs), strict=True)]
        outputs = runs[0].compute(*inputs)
    except Exception:
        return False
    if any(np.shape(each)[:1] != (sum(rows),) for each in outputs):
        return False
    ends = np.cumsum(rows)[:-1]
    for run, *parts in zip(runs, *(np.split(each, ends) for each in outputs), strict=True):
        run.outputs = parts
    return True
