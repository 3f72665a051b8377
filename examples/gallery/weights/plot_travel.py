r"""
Path length and displacement of weights
=======================================

Do weights go straight from their initial to their final values, or do they take detours?

The displacement of a weight is :math:`|w(T)-w(0)|`, its path length :math:`\sum_t |w(t+1)-w(t)|`.
They are equal for a weight that moves in one direction only. At a low learning rate paths are
nearly straight; at the edge of stability weights oscillate, and the path is many times longer
(Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957, 2024). :func:`pylyap.travel` sums
paths over every step without keeping the trajectory.
"""

# %%
import numpy as np

import pylyap as pl

net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y = pl.datasets.iris()
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.01], [1.0]]))
w0 = net.init("normal", runs=10, seed=0)
found = pl.travel(system, w0, n_steps=2000, every=20, entries="weights")

# %%
# :func:`pylyap.plotting.plot_travel`: the norm of the weights, and path length against relative
# displacement.
pl.plotting.plot_travel(found)

# %%
# The ratio of path length and displacement is 1 for a straight path.
first = np.concatenate([W.reshape(10, -1) for W, b in net.unpack(w0)], axis=1)
ratio = found.path_length / (found.weight_displacement * abs(first))
for rate, values, total in zip((0.01, 1.0), ratio, found.displacement, strict=True):
    print(f"learning rate {rate}: path / displacement {np.median(values):.2f} (median),", end=" ")
    print(f"relative displacement of all weights {np.median(total):.2f}")

# %%
# At a rate of 0.01 most points lie on the diagonal: the median path is as long as the
# displacement, and the norm of the weights grows by a tenth. At a rate of 1 the median path is
# four times longer than the displacement, and more than a hundred times longer for a tenth of the
# weights, since they oscillate across a valley at the edge of stability. The norm of the weights
# more than doubles.
