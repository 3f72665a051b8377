"""All Numba kernels. Numba is imported at the first call of a kernel.

Kernels are serial and release the GIL; `over_members` distributes them over the threads of the
package. Numba's own threading layers (OpenMP, TBB, workqueue) are never loaded: they abort or hang
in forked processes, and workqueue aborts when two threads use it concurrently.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pylyap._native import core
from pylyap._parallel import over_runs

L1, L2, LINF = 0, 1, 2

# Cost of one entry of a path in multiplications: an addition that depends on the previous one.
# Used only to divide work among threads.
_PER_ENTRY = 10.0


@cache
def distances() -> Any:
    """Kernel for distances of members from their references.

    distances(first, count, path, reference, n, norm, out)

      first, count  ()                       range of members to process
      path          (members, times, state)  in
      reference     (members,)               in: row of path that is the reference of each member
      n             ()                       number of leading entries of a state that count
      norm          ()                       L1, L2 or LINF
      out           (members, times)         out

    Sums run in the order of the entries, so a member's distance does not depend on the others.
    """

    def kernel(
        first: Any, count: Any, path: Any, reference: Any, n: Any, norm: Any, out: Any
    ) -> None:
        for m in range(first, first + count):
            r = reference[m]
            for t in range(path.shape[1]):
                total = 0.0
                for i in range(n):
                    difference = abs(path[m, t, i] - path[r, t, i])
                    if norm == L1:
                        total += difference
                    elif norm == L2:
                        total += difference * difference
                    elif not difference <= total:  # propagates nan
                        total = difference
                out[m, t] = total**0.5 if norm == L2 else total

    return _compiled(kernel)


@cache
def path_lengths() -> Any:
    """Kernel for the path length of each state component.

    path_lengths(first, count, path, out)

      first, count  ()                       range of members to process
      path          (members, times, state)  in
      out           (members, m)             in, out: sum over t of |x_i(t+1) - x_i(t)| is added

    Sums over the first m entries of a state, in the order of time.
    """

    def kernel(first: Any, count: Any, path: Any, out: Any) -> None:
        for m in range(first, first + count):
            for t in range(1, path.shape[1]):
                for i in range(out.shape[1]):
                    out[m, i] += abs(path[m, t, i] - path[m, t - 1, i])

    return _compiled(kernel)


def over_members(kernel: Any, threads: int | None, path: Any, *arguments: Any) -> None:
    """Run a kernel for all members of a path (members, ...) on the threads of the package."""
    compiled = kernel()
    # Compile in the calling thread, with no members: Numba compiles under a global lock.
    compiled(0, 0, path, *arguments)

    def work(task: core.Task) -> None:
        compiled(task.first, task.count, path, *arguments)

    over_runs(work, len(path), threads=threads, cost=_PER_ENTRY * path.size)


def _compiled(kernel: Any) -> Any:
    """Compile a kernel that releases the GIL; cached on disk if a cache folder is writable."""
    from numba import njit

    rules: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **rules)(kernel)
    except RuntimeError:  # no writable cache folder
        return njit(**rules)(kernel)
