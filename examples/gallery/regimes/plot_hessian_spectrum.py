r"""
Spectrum of the Hessian
=======================

How many directions of weight space are curved, and how many are flat?

The Hessian of the loss of a classifier has a few large eigenvalues, about as many as there are
classes, and a bulk near zero (Sagun, Evci, Güney, Dauphin, Bottou, arXiv:1706.04454). Flat
directions come from symmetries of the network and from the surplus of weights. Negative
eigenvalues are directions along which the loss is concave: a point with one of them is no
minimum. :func:`pylyap.hessian_spectrum` computes all eigenvalues, for small networks.
"""

# %%
import numpy as np

import pylyap as pl

net = pl.Network((4, 10, 3), activation="tanh", loss="cross_entropy")
X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2))
w0 = net.init("glorot_uniform", runs=20, seed=0)
steps = [0, 100, 1000, 10_000]
path = system.trajectory(w0, 10_000, every=100)[:, [0, 1, 10, 100]]
spectrum = pl.hessian_spectrum(system, np.swapaxes(path, 0, 1))

# %%
# :func:`pylyap.plotting.plot_hessian_spectrum`: medians over 20 runs at four times.
pl.plotting.plot_hessian_spectrum(spectrum, labels=[f"step {step}" for step in steps])

# %%
# Which part of the eigenvalues is negative, and which part of their sum is in the three largest?
values = spectrum.eigenvalues
for i, step in enumerate(steps):
    top = values[i, :, :3].sum(axis=-1) / abs(values[i]).sum(axis=-1)
    print(
        f"step {step:5d}: {np.median(spectrum.negative[i]):.0%} negative,",
        f"smallest {np.median(values[i, :, -1]):+.4f}, largest {np.median(values[i, :, 0]):.3f},",
        f"the three largest are {np.median(top):.0%} of the sum of absolute values",
    )

# %%
# At the start 45 % of the eigenvalues are negative and curvature is spread over many directions:
# the three largest eigenvalues are 19 % of the sum of absolute values. After 1000 steps they are
# 89 %, and the others have fallen below 0.025. About a quarter of the eigenvalues remains
# negative after 10,000 steps, none below -0.002 in the median: training has not reached a
# minimum, but a nearly flat valley.
