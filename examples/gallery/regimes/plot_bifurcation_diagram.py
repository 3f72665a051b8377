r"""
Bifurcation diagram of a training
=================================

What replaces the minimum of the loss when the learning rate is too large for it?

A minimum of curvature :math:`\lambda` loses its stability at :math:`\eta = 2/\lambda` by a period
doubling: the weights jump between two points on both sides. In one dimension a cascade of period
doublings to chaos follows, as in the logistic map (Feigenbaum, J. Stat. Phys. 19, 25, 1978). A
bifurcation diagram shows the values that a quantity takes after a transient, for each value of
the parameter. :func:`pylyap.find_period` names the periods.
"""

# %%
# One network at 240 learning rates, from the same initial weights. The last 60 of 1500 steps are
# drawn.
import numpy as np

import pylyap as pl

net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
X, y = pl.datasets.iris()
w0 = net.init("normal", runs=1, seed=0)
rates = np.geomspace(0.2, 12, 240)
scan = pl.learning_rate_scan(net, X, y, rates, 1500, w0=w0, n_late=60, n_perturbations=0, observe=0)

# %%
# :func:`pylyap.plotting.plot_bifurcation`; colours are the regimes of the runs.
pl.plotting.plot_bifurcation(scan)

# %%
period = pl.find_period(scan.late_weight[:, 0])
for p in range(7):
    at = rates[period == p]
    if len(at):
        print(f"period {p or 'none'}: {len(at)} rates, from {at.min():.2f} to {at.max():.2f}")

# %%
# From a rate of 0.2 on the loss jumps between two values at the edge of stability. The two
# branches separate up to a rate of 1.1; then the cycle is lost and the losses of chaotic runs
# (red) fill a band, with regular windows in between. Near 2 the units saturate and most runs end
# at rest on the plateau of ln 3 = 1.1, the loss of guessing, where the gradient vanishes: these
# runs count as convergent. Above a rate of 6 they leave it for cycles with still larger losses.
# One diagram belongs to one initial condition.
