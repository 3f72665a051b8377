"""The time of a published study: 8000 runs, 5000 steps, all 13 exponents.

    python benchmarks/study.py            # 4000 ReLU and 4000 tanh runs
    python benchmarks/study.py --runs 64  # a test of the code

Networks 2-3-1 with He initialisation learn y = x₁² + x₂² from 100 points by gradient descent with
learning rate 0.1 (Sharafi, Martin, Hallerberg, Phys. Rev. E 111, 054208 (2025); the sizes of data
and network are assumed).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pylyap as pl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4000, help="runs per activation")
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    X, y = pl.datasets.quadratic(100)
    total = 0.0
    for activation in ("relu", "tanh"):
        net = pl.Network((2, 3, 1), activation=activation)
        system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
        w0 = net.init("he_normal", runs=options.runs, seed=0)
        begin = time.perf_counter()
        s = pl.lyapunov_spectrum(system, w0, options.steps, record_every=options.steps // 10)
        seconds = time.perf_counter() - begin
        total += seconds
        steps = options.runs * options.steps
        print(
            f"{activation:5} {seconds:6.1f} s, {1e6 * seconds / steps:.2f} us per step and run; "
            f"median final loss {np.median(s.loss[:, -1]):.2g}, "
            f"median leading exponent {np.median(s.exponents[:, 0]):.2g} nats per step, "
            f"{int((s.status == pl.Status.DIVERGED).sum())} diverged"
        )
    print(f"total {total:6.1f} s")


if __name__ == "__main__":
    main()
