"""Every Numba kernel. Numba is imported with the first that is called."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

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


def _compiled(kernel: Any) -> Any:
    """The kernel over all threads, kept in a cache where one can be written."""
    from numba import njit

    rules: dict[str, Any] = {"parallel": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **rules)(kernel)
    except RuntimeError:  # no folder for it
        return njit(**rules)(kernel)
