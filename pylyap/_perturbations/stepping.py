"""Reference trajectories and their perturbed members: steps, distances, losses, path lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylyap import _kernels
from pylyap._checks import Floats
from pylyap._map_runs import MapRuns
from pylyap._parallel import ProgressBar
from pylyap._runs import TrainingRuns
from pylyap._streaming import stream

Integers = NDArray[np.int64]

NORMS = {"l1": _kernels.L1, "l2": _kernels.L2, "linf": _kernels.LINF}

# Bytes of states that are stepped together with their distances, and of their path before it is
# reduced: a path this short stays in the cache of a core, or nearly.
_STATES, _PATH = 6.4e7, 1.6e7


@dataclass(frozen=True)
class Block:
    """Members stepped together: all members of several runs, or part of those of one run."""

    runs: Integers
    first: int  # member, of all sizes of a run: size * n_perturbations + perturbation
    stop: int

    @property
    def members(self) -> Integers:
        return np.arange(self.first, self.stop)


@dataclass(frozen=True)
class Measured:
    """What is measured of a block; arrays that are not recorded have no entries."""

    distances: Floats  # (runs, members, T + 1)
    states: Floats  # (runs, members, n), the last ones
    losses: Floats  # (runs, 1 + members, T + 1), of the reference first
    path_lengths: Floats  # (runs, 1 + members, n_params), of the reference first


@dataclass(frozen=True)
class Stepper:
    """Settings with which blocks of members are stepped and reduced."""

    maps: TrainingRuns | MapRuns
    batch: tuple[int, ...]
    norm: str
    start: int
    n_steps: int
    every: int
    losses: bool
    path_lengths: bool
    threads: int | None

    def blocks(self, runs: int, members: int) -> Iterator[Block]:
        """All members of all runs, in blocks of bounded memory."""
        per_member = self.maps.n + 4 * (self.n_steps // self.every + 1)  # state and distances
        most = max(2, int(_STATES / (8.0 * per_member)))
        if members + 1 <= most:
            size = max(1, most // (members + 1))
            for r in range(0, runs, size):
                yield Block(np.arange(r, min(r + size, runs)), 0, members)
        else:
            for r in range(runs):
                for first in range(0, members, most - 1):
                    yield Block(np.array([r]), first, min(first + most - 1, members))

    def transient(self, states: Floats, bar: ProgressBar) -> Floats:
        """The states (runs, n) after the `start` steps before the perturbation."""
        if self.start == 0:
            return states
        path = self._path(states, np.arange(len(states)), 0, self.start, self.start, bar)
        return np.ascontiguousarray(path[:, -1])

    def measure(self, states: Floats, runs: Integers, bar: ProgressBar) -> Measured:
        """Step states (runs, 1 + members, n), of the reference first, and reduce their paths."""
        n_runs, each, n = states.shape
        flat = np.ascontiguousarray(states.reshape(-1, n))
        reference = np.repeat(np.arange(n_runs) * each, each)
        owner = np.repeat(runs, each)
        records = self.n_steps // self.every
        distances = np.empty((n_runs * each, records + 1))
        losses = np.empty((n_runs * each, records + 1 if self.losses else 0))
        lengths = np.zeros((n_runs * each, self.maps.n_params if self.path_lengths else 0))
        self._reduce(flat[:, np.newaxis], reference, distances[:, :1])
        if self.losses:
            losses[:, 0] = self.maps.losses(flat)
        # Path lengths need every step; distances and losses, the records alone.
        every, per_record = (1, self.every) if self.path_lengths else (self.every, 1)

        def advance(states: Floats, done: int, count: int) -> Floats:
            begin = self.start + done * self.every
            return self._path(states, owner, begin, count * self.every, every, bar)

        pieces = stream(advance, flat, records, n_bytes=_PATH, per_record=per_record)
        for done, path in pieces:
            flat = path[:, -1]
            if self.path_lengths:
                _kernels.over_members(_kernels.path_lengths, self.threads, path, lengths)
            path = path[:, ::per_record]
            span = slice(done, done + path.shape[1])
            self._reduce(path, reference, distances[:, span])
            if self.losses:
                losses[:, span][:, 1:] = self.maps.losses(path[:, 1:])
        return Measured(
            distances=distances.reshape(n_runs, each, -1)[:, 1:],
            states=flat.reshape(n_runs, each, n)[:, 1:],
            losses=losses.reshape(n_runs, each, -1),
            path_lengths=lengths.reshape(n_runs, each, -1),
        )

    def _path(
        self,
        flat: Floats,
        owner: Integers,
        begin: int,
        n_steps: int,
        every: int,
        progress: bool | ProgressBar = False,
    ) -> Floats:
        """Trajectory (members, n_steps // every + 1, n); `owner` is the run of each member."""
        return self.maps.paths(
            flat,
            begin,
            n_steps,
            every,
            batch=self.batch,
            chosen=owner,
            threads=self.threads,
            progress=progress,
        )

    def _reduce(self, path: Floats, reference: Integers, out: Floats) -> None:
        n = self.maps.n_params
        norm = NORMS[self.norm]
        _kernels.over_members(_kernels.distances, self.threads, path, reference, n, norm, out)
