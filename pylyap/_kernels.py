"""Every Numba kernel. Numba is imported with the first that is called."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

from pylyap._parallel import available_threads

# Numba's plainest threading layer aborts where two threads enter parallel regions at once.
LOCK = Lock()

L1, L2, LINF = 0, 1, 2


@cache
def distances() -> Any:
    """distances(path, reference, n, norm, out): of each member to its reference, at each time.

    path (members, times, state), reference (members,) a row of path for each, distances over the
    first n entries of a state in one of the norms, out (members, times). Sums run in the order of
    the entries, so that a member's distance does not depend on who else is there.
    """
    from numba import prange

    def kernel(path: Any, reference: Any, n: Any, norm: Any, out: Any) -> None:
        for m in prange(path.shape[0]):
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
    """path_lengths(path, out): adds |x_i(t + 1) - x_i(t)| over the times of path (members, times,
    state) to out (members, m), for the first m entries of a state, in the order of time."""
    from numba import prange

    def kernel(path: Any, out: Any) -> None:
        for m in prange(path.shape[0]):
            for t in range(1, path.shape[1]):
                for i in range(out.shape[1]):
                    out[m, i] += abs(path[m, t, i] - path[m, t - 1, i])

    return _compiled(kernel)


def call(kernel: Any, threads: int | None, *arguments: Any) -> None:
    """Run a kernel on so many threads, or all cores this process may use, alone."""
    from numba import get_num_threads, set_num_threads

    with LOCK:
        before = get_num_threads()
        wanted = available_threads() if threads is None else threads
        set_num_threads(max(1, min(wanted, before)))
        try:
            kernel()(*arguments)
        finally:
            set_num_threads(before)


def _compiled(kernel: Any) -> Any:
    """The kernel over all threads, kept in a cache where one can be written."""
    from numba import njit

    rules: dict[str, Any] = {"parallel": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **rules)(kernel)
    except RuntimeError:  # no folder for it
        return njit(**rules)(kernel)
