r"""
The edge of stability
=====================

Why does training with a large learning rate not diverge, although the curvature of the loss
rises?

On a parabola of curvature :math:`\lambda`, a step of gradient descent is stable while
:math:`\lambda < 2/\eta`. The sharpness of a loss is the largest eigenvalue of its Hessian. In
training with full batches it often rises (progressive sharpening) until it reaches
:math:`2/\eta`, and then stays near this threshold while the loss still decreases, no longer at
every step: the edge of stability (Cohen, Kaur, Li, Kolter, Talwalkar, ICLR 2021,
arXiv:2103.00065). A smaller learning rate has a higher threshold, so that the sharpness rises
further before it is stopped.
"""

# %%
# Networks with 20 tanh units learn Iris with a squared error, from the same initial weights at
# three learning rates. :func:`pylyap.sharpness_along` finds the largest eigenvalue by Lanczos
# iteration at every tenth step.
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
net = pl.Network((4, 20, 3), activation="tanh", loss="mse")
rates = np.array([0.2, 0.4, 0.6])
system = pl.TrainingMap(net, X, np.eye(3)[y], pl.GradientDescent(lr=rates))
found = pl.sharpness_along(system, net.init("glorot_uniform", seed=2), 2000, every=10)

# %%
# :func:`pylyap.plotting.plot_edge_of_stability` draws the thresholds as dashed lines.
pl.plotting.plot_edge_of_stability(found)

# %%
# The sharpness relative to the threshold, mean over the last 500 steps:
for rate, ratio, loss in zip(rates, found.ratio, found.loss, strict=True):
    rises = np.mean(np.diff(loss) > 0)
    print(
        f"learning rate {rate}: ratio {ratio[-50:].mean():.3f}, final loss {loss[-1]:.4f}", end=", "
    )
    print(f"the loss rises in {rises:.0%} of the intervals")

# %%
# At a rate of 0.2 the sharpness rises to 0.8 of its threshold and the loss decreases at all
# times. At 0.4 and 0.6 the sharpness starts above the threshold, falls, rises again, and then
# stays within 2 % of it (mean of the last 500 steps). The loss has peaks where the sharpness
# exceeds the threshold and still decreases, to a lower value than at the small rate.
