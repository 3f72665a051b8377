r"""
Where two learning rates let training converge
==============================================

For which learning rates of its two layers does a small network converge, and how sharp is the
border?

:func:`pylyap.stability_map` trains one run per pixel from the same initial weights. The network is
that of Sohl-Dickstein (arXiv 2402.06184) with half as many units and fewer samples: layers divided
by :math:`\\sqrt n`, no biases. A forward factor :math:`\\alpha` of a layer is initial weights times
:math:`\\alpha` and a rate times :math:`\\alpha^2`; biases that start at 0 stay there with the
factor 0. :func:`pylyap.plotting.plot_stability` draws runs that converged in blue, others in
orange.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

n, N = 8, 40
rng = np.random.default_rng(1)
forward = np.array([np.sqrt(2 / n), 1 / n])
net = pl.Network((n, n, 1), activation="tanh", loss="mse")
rule = pl.GradientDescent(lr=1.0, layer_scale=2 * forward**2, bias_scale=0)
system = pl.TrainingMap(net, rng.normal(size=(N, n)), rng.normal(size=N), rule)
weights = forward[0] * rng.normal(size=(n, n)), forward[1] * rng.normal(size=(1, n))
w0 = net.pack([(weights[0], np.zeros(n)), (weights[1], np.zeros(1))])

found = pl.stability_map(
    system, ("lr_0", (0.1, 1e5, "log")), ("lr_1", (0.1, 1e4, "log")), (64, 80), 150, w0=w0
)
print(found)

# %%
# A part of the border, about ten times finer along each axis:
near = found.zoom(((10.0, 100.0), (25.0, 65.0)), shape=(129, 129))
print(pl.box_dimension(near))
print(pl.uncertainty_exponent(near))

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
pl.plotting.plot_stability(found, ax=axes[0])
near.plot(ax=axes[1])
x, y = near.x[[0, -1, -1, 0, 0]], near.y[[0, 0, -1, -1, 0]]
axes[0].plot(x, y, color="black", linewidth=1.2)
axes[0].set_title("blue: converged; the box is shown on the right")

# %%
# On the left the border looks like a line along which the second rate falls by a factor of ten: a
# larger first rate leaves less room for the second. On the right it is rough, and inside it blue
# and orange runs mix. The dimension of the cut is about 1.8 and the uncertainty exponent about 0.2:
# to halve the fraction of uncertain pairs of rates takes about 30 times the precision. Four sizes
# of boxes give a wide interval; a map of 513 pixels a side has six.
#
# Colours are ranks of the score. The fastest training is in the dark blue, where both rates are
# large, and not at the smallest rates.
