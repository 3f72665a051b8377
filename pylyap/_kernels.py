"""Every Numba kernel. Numba is imported with the first that is called.

Kernels are serial and release the GIL; `over_members` spreads them over the package's own threads.
No threading layer of Numba is ever loaded: its layers (OpenMP, TBB, a work queue) abort or hang in
the children of fork, and the work queue aborts where two threads enter it at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pylyap._native import core
from pylyap._parallel import over_runs

L1, L2, LINF = 0, 1, 2

# Multiplications that take as long as one entry of a path: an addition that waits for the one
# before it. For dividing work among threads alone.
_PER_ENTRY = 10.0


@cache
def distances() -> Any:
    """distances(first, count, path, reference, n, norm, out): of each member to its reference.

    path (members, times, state), reference (members,) a row of path for each, distances over the
    first n entries of a state in one of the norms, out (members, times); for `count` members from
    `first` on. Sums run in the order of the entries, so that a member's distance does not depend on
    who else is there.
    """

    def kernel(
        first: Any, count: Any, path: Any, reference: Any, n: Any, norm: Any, out: Any
    ) -> None:
        for m in range(first, first + count):
            r = reference[m]
            for t in range(path.shape[1]):
                total = 0.0
                for i in range(n):
                    apart = abs(path[m, t, i] - path[r, t, i])
                    if norm == 0:
                        total += apart
                    elif norm == 1:
                        total += apart * apart
                    elif not apart <= total:  # nan stays
                        total = apart
                out[m, t] = total**0.5 if norm == 1 else total

    return _compiled(kernel)


@cache
def path_lengths() -> Any:
    """path_lengths(first, count, path, out): adds |x_i(t + 1) - x_i(t)| over the times of path
    (members, times, state) to out (members, m), for the first m entries of a state, in the order of
    time; for `count` members from `first` on."""

    def kernel(first: Any, count: Any, path: Any, out: Any) -> None:
        for m in range(first, first + count):
            for t in range(1, path.shape[1]):
                for i in range(out.shape[1]):
                    out[m, i] += abs(path[m, t, i] - path[m, t - 1, i])

    return _compiled(kernel)


def over_members(kernel: Any, threads: int | None, path: Any, *arguments: Any) -> None:
    """Run a kernel for all members of a path, (members, ...), on threads of the package."""
    compiled = kernel()
    # By the caller, for no members: Numba compiles under a lock of its own.
    compiled(0, 0, path, *arguments)

    def work(task: core.Task) -> None:
        compiled(task.first, task.count, path, *arguments)

    over_runs(work, len(path), threads=threads, cost=_PER_ENTRY * path.size)


def _compiled(kernel: Any) -> Any:
    """The kernel without the GIL, kept in a cache where one can be written."""
    from numba import njit

    rules: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **rules)(kernel)
    except RuntimeError:  # no folder for it
        return njit(**rules)(kernel)
