r"""
The edge of stability of Adam
=============================

Does Adam train at a threshold of stability?

The threshold of Adam, :math:`38/\eta` at :math:`\beta_1 = 0.9`, is not for the largest eigenvalue
of the Hessian :math:`H` but for that of the preconditioned :math:`P^{-1}H`, where the step is
:math:`w' = w - \eta P^{-1} m'` (Cohen et al., arXiv:2207.14484). For Adam and AdamW
:func:`pylyap.sharpness_along` computes it by default.
"""

# %%
# Three learning rates, the same initial weights, all samples in each step:
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
net = pl.Network((4, 20, 3), activation="tanh", loss="mse")
w0 = net.init("glorot_uniform", seed=1)
system = pl.TrainingMap(net, X, np.eye(3)[y], pl.Adam(lr=np.array([0.01, 0.03, 0.1])))
found = pl.sharpness_along(system, w0, 1500, every=10)
print(f"kind: {found.kind}, median ratios over the last half:", end=" ")
print(np.median(found.ratio[:, 75:], axis=1).round(3))

# %%
# The preconditioned sharpness relative to the threshold, :func:`pylyap.plotting.plot_sharpness`. It
# is far above 1 in the first steps, where the second moment is that of few gradients:
figure = pl.plotting.plot_sharpness(found)
figure.axes[0].set_ylim(0, 1.6)
figure

# %%
# Without second derivatives: the smallest learning rate for which the loss increases along the next
# update gives the critical sharpness (Kalra et al., arXiv:2601.16979). Its ratio to
# :math:`2/\eta` is above 1 exactly where the next step increases the loss.
critical = pl.sharpness_along(system, w0, 1500, kind="critical", tol=1e-2)
rises = np.diff(critical.loss, axis=1) > 0
assert ((critical.ratio[:, :-1] > 1) == rises).mean() > 0.99
for lr, fraction in zip(found.coords["lr"], rises.mean(axis=1), strict=True):
    print(f"lr {lr:g}: the loss rises in {fraction:.0%} of the steps")

# %%
# At learning rates 0.03 and 0.1 the preconditioned sharpness rises to the threshold, falls when an
# oscillation has grown, and rises to the threshold again; its median ratio is 0.95. At 0.01 it
# reaches the threshold late.
