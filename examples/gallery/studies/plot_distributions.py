r"""
Distributions over the runs
===========================

Do runs that differ in their initial weights only end alike?

One run says little about a training. For He-initialised networks the final loss has distinct
clusters, and initial weights of a wide range lead to one broad distribution (Sharafi, Martin,
Hallerberg, Phys. Rev. E 111, 054208, 2025). Exponents have distributions of their own: their
width over the runs is a property of the training, not a numerical error.
"""

# %%
# 400 runs for each of two activations, 13 weights each:
import numpy as np

import pylyap as pl

X, y = pl.datasets.quadratic()
losses, exponents = [], []
for activation in ("relu", "tanh"):
    net = pl.Network((2, 3, 1), activation=activation)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    w0 = net.init("he_normal", runs=400, seed=0)
    spectrum = pl.lyapunov_spectrum(system, w0, 2000, record_every=500)
    losses.append(spectrum.loss[:, -1])
    exponents.append(spectrum.exponents[:, -1])

# %%
# :func:`pylyap.plotting.plot_distributions`:
pl.plotting.plot_distributions(
    {"final loss": losses, "most negative exponent, nats per step": exponents},
    labels=["ReLU", "tanh"],
)

# %%
for name, loss, exponent in zip(("ReLU", "tanh"), losses, exponents, strict=True):
    low, middle, high = np.quantile(exponent, [0.25, 0.5, 0.75])
    print(f"{name}: loss below 0.01 in {np.mean(loss < 0.01):.0%} of the runs,", end=" ")
    print(f"last exponent {middle:.3f}, quartiles {low:.3f} and {high:.3f}")

# %%
# The final losses of both activations have two clusters, one near 0.005 and one near 0.05, with
# few runs between: the initial weights decide between two kinds of solutions. The most negative
# exponents have a long tail to -1 and below: in a few runs the sharpest direction contracts by
# more than a factor of e per step.
