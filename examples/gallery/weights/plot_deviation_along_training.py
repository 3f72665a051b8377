r"""
Deviation against the loss
==========================

How far must weights move to reach a given loss, and does the width change this?

In wide networks many weights share the work, and each moves less: at equal loss the root mean
square deviation is smaller the wider the network, and an abrupt rise of the deviation marks
divergence (Jesus et al., Mathematics 9, 2246, 2021). :func:`pylyap.weight_deviation` accepts
snapshots along training. In the limit of infinite width training stays in the linear
neighbourhood of the start (Jacot, Gabriel, Hongler, NeurIPS 2018, arXiv:1806.07572).
"""

# %%
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
widths, rms, losses = (8, 32, 128), [], []
for width in widths:
    net = pl.Network((4, width, 3), activation="tanh", loss="cross_entropy")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2))
    w0 = net.init("glorot_uniform", runs=6, seed=0)
    path = system.trajectory(w0, 1000, every=20)
    deviation = pl.weight_deviation(w0, path, net, bins=0)
    losses.append(system.loss(path))
    rms.append(deviation)

# %%
# :func:`pylyap.plotting.plot_deviation_along` for the narrowest networks, and for the widest:
pl.plotting.plot_deviation_along(rms[0], range(0, 1001, 20), losses[0], title="width 8")

# %%
pl.plotting.plot_deviation_along(rms[-1], range(0, 1001, 20), losses[-1], title="width 128")

# %%
# The deviation at which each width reaches a loss of 0.1:
for width, deviation, loss in zip(widths, rms, losses, strict=True):
    at = (loss < 0.1).argmax(axis=1)
    values = deviation.rms[np.arange(6), at, 0]
    print(
        f"width {width:3d}: rms deviation {np.median(values):.3f} at step {20 * np.median(at):.0f}"
    )

# %%
# The curves of both widths have the same form but a different scale: to reach a loss of 0.1 the
# weights of 8 units move by 0.47, those of 128 units by 0.09. Four times the width reduces the
# deviation by a factor of 2.2 to 2.4: the change of the function is shared by more weights.
