r"""
Joint histogram of initial and final weights
============================================

Does a trained network remember its initial weights?

The joint distribution of :math:`w_i` and :math:`w_f` has its peak on the line :math:`w_f = w_i`
as long as most weights stay near their start; spread and skewness grow with training (Jesus,
Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246, 2021).
:func:`pylyap.joint_histogram` counts the weights of all runs together and computes the quantiles
of :math:`w_f` for each bin of :math:`w_i`.
"""

# %%
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
net = pl.Network((4, 32, 32, 3), activation="relu", loss="cross_entropy")
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=16))
w_i = net.init("glorot_uniform", runs=24, seed=0)
w_f = system.trajectory(w_i, 2000, every=2000)[:, -1]
joint = pl.joint_histogram(w_i, w_f, net, layer=1, bins=60)

# %%
# The layer between the hidden layers, with the densities of three strips:
# :func:`pylyap.plotting.plot_joint`.
pl.plotting.plot_joint(joint, strips=[-0.2, 0.0, 0.2])

# %%
# A strip by itself, :func:`pylyap.plotting.plot_strip`: the weights that started between 0.15 and
# 0.25.
strip = joint.strip(0.2, width=0.1)
pl.plotting.plot_strip(strip)

# %%
first, last = (net.unpack(w)[1][0].ravel() for w in (w_i, w_f))
moved = abs(last - first)
print(f"correlation of initial and final weights {np.corrcoef(first, last)[0, 1]:.3f}")
print(f"median |w_f - w_i| {np.median(moved):.4f}, 98 % quantile {np.quantile(moved, 0.98):.2f}")

# %%
# The histogram is concentrated along the line :math:`w_f = w_i`: half of the weights move by less
# than 0.021, and initial and final weights have a correlation of 0.94. The three densities are
# centred on their strips (ticks), and those of the outer strips have the longer tail on the outer
# side. The network has learnt with a small part of its weights; the others are still those of the
# start.
