"""Systems for tests of studies, which workers can import, and a study that can be killed."""

from __future__ import annotations

import sys
import time

import numpy as np

import pylyap as pl


@np.errstate(over="ignore", invalid="ignore")
def henon(x):
    return np.stack([1 - 1.4 * x[..., 0] ** 2 + x[..., 1], 0.3 * x[..., 0]], axis=-1)


def derivative(x):
    J = np.zeros((*x.shape, 2))
    J[..., 0, 0], J[..., 0, 1], J[..., 1, 0] = -2.8 * x[..., 0], 1.0, 0.3
    return J


def vectorised():
    return pl.DiscreteMap(henon, derivative, n=2, vectorized=True)


class Henon:
    """A map of the user's own, with a parameter; `pause` (s) makes its steps slow."""

    n = 2

    def __init__(self, a=1.4, pause=0.0):
        self.a, self.pause = a, pause

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, x, t=0):
        time.sleep(self.pause)
        return np.array([1 - self.a * x[0] ** 2 + x[1], 0.3 * x[0]])

    def tangent(self, x, V, t=0):
        return np.array([[-2 * self.a * x[0], 1.0], [0.3, 0.0]]) @ V


STATES = np.random.default_rng(0).uniform(-0.1, 0.1, (12, 2))
SPECTRUM = {"name": "spectrum", "n_steps": 40, "record_every": 10, "variables": ["exponents"]}


def study(system=None, states=STATES, **changes):
    settings = {"analysis": SPECTRUM, "seed": 3, "title": "Hénon"} | changes
    return pl.Study(system=vectorised() if system is None else system, states=states, **settings)


if __name__ == "__main__":
    pl.run_study(study(Henon(pause=float(sys.argv[2]))), sys.argv[1])
