r"""
Three kinds of finite-time exponents
====================================

How does stability change while a network learns, and does the answer depend on the definition of
growth?

A finite-time Lyapunov exponent is the growth rate over a window of steps. There are three
definitions in :func:`pylyap.ftle`, which agree for infinitely long windows only. ``"qr"`` sums
the logarithms of diag R of a frame that is orthonormalised at each step (Benettin et al.,
Meccanica 15, 9, 1980). ``"svd"`` takes the singular values of the product of the Jacobians of the
window; the first one is the largest growth of any direction. ``"clv"`` is the growth of covariant
Lyapunov vectors (Ginelli et al., Phys. Rev. Lett. 99, 130601, 2007), which the dynamics maps to
themselves.
"""

# %%
# Sixty-four networks 2-3-1 fit a paraboloid. All kinds use the same windows of 25 steps.
import numpy as np

import pylyap as pl

net = pl.Network((2, 3, 1), activation="tanh")
system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.5))
w0 = net.init("he_normal", runs=64, seed=0)
kinds = {"qr": "frame (qr)", "svd": "singular values (svd)", "clv": "covariant vectors (clv)"}
windows = {"n_steps": 500, "window": 25, "n_transient": 100, "k": 4}
values = np.stack([pl.ftle(system, w0, kind=kind, **windows) for kind in kinds])

# %%
# :func:`pylyap.plotting.plot_ftle` draws one panel per exponent: medians over the runs with
# quartiles.
pl.plotting.plot_ftle(values, range(100, 600, 25), labels=list(kinds.values()), leading=4)

# %%
# By how much do the kinds differ, and how does that depend on the window?
for window in (5, 25, 100, 500):
    windows = {"n_steps": 500, "window": window, "n_transient": 100, "k": 4}
    qr, svd, clv = (pl.ftle(system, w0, kind=kind, **windows) for kind in kinds)
    print(f"window {window:3d}: median |svd − qr| {np.median(abs(svd - qr)):.1e},", end=" ")
    print(f"median |clv − qr| {np.median(abs(clv - qr)):.1e} nats per step")

# %%
# The first singular value is the largest possible growth of the window, and is therefore the
# largest of the three (the first panel starts at 0.008 nats per step against 0.004 of the frame);
# the last one is the smallest. Frame and covariant vectors share their first vector, so their
# :math:`\lambda_1` are equal. All approach zero from both sides as training converges. Here the
# kinds still differ by 1e-3 with a window of 500 steps, since the exponents themselves are that
# close to each other: over 500 steps neighbouring directions hardly separate. Report the kind and
# the window with every finite-time exponent of training.
