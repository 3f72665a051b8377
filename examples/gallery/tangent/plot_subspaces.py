"""
Training in a subspace
======================

Does a network learn if its weights move only in the directions that training amplifies or removes?
Only in the bulk, which training leaves alone? And is the bulk the same for other initial weights?

The right singular vectors of the training Jacobian with singular values near 1 span the bulk
(arXiv 2412.07003).
:class:`pylyap.ProjectedMap` restricts training to a subspace, :func:`pylyap.subspace_overlap`
compares two of them, :func:`pylyap.plotting.plot_subspace_overlap` shows their angles.
"""

import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
net = pl.Network((4, 10, 3), activation="tanh", loss="cross_entropy")
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
w0 = net.init(runs=2, seed=0)
first, second = (pl.training_jacobian(system, w, n_steps=500) for w in w0)

# %%
# Of the 83 directions those are bulk whose singular values are within 1 % of 1.
bulks = [j.right[:, np.abs(j.log_singular_values) < 0.01] for j in (first, second)]
found = pl.subspace_overlap(*bulks)
print(f"dimensions {[b.shape[1] for b in bulks]} of {net.n_params}")
print(f"overlap {found.overlap:.3f}; random {found.expected:.3f} ± {found.spread:.3f}")
pl.plotting.plot_subspace_overlap(found)

# %%
# Training with all weights, in the bulk only, and in its complement only, all from the same
# weights.
maps = {
    "all directions": system,
    "complement of the bulk": pl.ProjectedMap(system, bulks[0], exclude=True),
    "bulk": pl.ProjectedMap(system, bulks[0]),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
first.plot(ax=axes[0], width=0.01, title="singular values")
for label, restricted in maps.items():
    path = restricted.trajectory(w0[0], 500)
    axes[1].plot(system.loss(path), label=label)
axes[1].set(xlabel="step", ylabel="loss", title="restricted training")
axes[1].legend()

# %%
# What is seen: the complement of the bulk is enough to learn, the bulk alone is not. The bulks of
# the two initial weights overlap more than random subspaces of their dimensions.
