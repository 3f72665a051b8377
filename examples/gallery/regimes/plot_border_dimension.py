r"""
Dimension of a border: the tent map of slope 3
==============================================

How well can the time at which a point leaves an interval be predicted from where it starts?

Under :math:`x \\mapsto 3x` for :math:`x < 1/2`, :math:`3 - 3x` otherwise, almost all points leave
[0, 1]. Those that never do are the Cantor set of middle thirds, of dimension ln 2/ln 3. Two points
at the distance ε leave after different numbers of steps with a probability that scales as ε to the
uncertainty exponent 1 − ln 2/ln 3 (Grebogi et al., Phys. Lett. A 99, 415, 1983).
:func:`pylyap.box_dimension` and :func:`pylyap.uncertainty_exponent` estimate both from the times of
escape on a grid; :func:`pylyap.plotting.plot_box_dimension` and
:func:`pylyap.plotting.plot_uncertainty` draw them.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

start = np.linspace(-0.2, 1.3, 2**15 + 1)
x, steps = start.copy(), np.zeros(len(start), int)
for t in range(1, 60):
    inside = (x >= 0) & (x <= 1)
    steps[inside] = t
    x = np.where(inside, np.where(x < 0.5, 3 * x, 3 - 3 * x), -1.0)

box, pairs = pl.box_dimension(steps), pl.uncertainty_exponent(steps)
print(box)
print(pairs)
print(f"expected: {np.log(2) / np.log(3):.4f} and {1 - np.log(2) / np.log(3):.4f}")

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
axes[0].plot(start, steps, ",", color="#31688e")
axes[0].set(xlabel="initial x", ylabel="steps in [0, 1]", yscale="symlog")
pl.plotting.plot_box_dimension(box, ax=axes[1])
pl.plotting.plot_uncertainty(pairs, ax=axes[2])
fig.align_labels()

# %%
# Both estimates agree with the exact values within their errors. Counts do not follow the line
# exactly: boxes are halved, gaps are thirds, and the counts oscillate in the logarithm of the
# scale. The standard error contains the scatter about the line for this reason.
