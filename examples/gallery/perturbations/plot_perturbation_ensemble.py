r"""
Distances between perturbed trajectories
========================================

What happens to a perturbation of the weights of size 1e-8 during the rest of the training?

A perturbation ensemble trains copies of a run whose initial weights differ slightly, and records
their distances from the unperturbed run. At a low learning rate the distances stay of the order
of the perturbation; at the edge of stability they grow exponentially for a while, and in the
chaotic regime until they saturate at the distance between unrelated runs (Danovski, Soriano,
Lacasa, Front. Complex Syst. 2, 1367957, 2024). Copies see the same minibatches and the same
arithmetic as their reference: without a perturbation every distance is exactly zero.
"""

# %%
# Three learning rates, 8 runs each, with 5 perturbed copies for each of three sizes of the
# perturbation: :func:`pylyap.perturbation_ensemble`.
import numpy as np

import pylyap as pl

net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y, *_ = pl.datasets.split(*pl.datasets.iris(), 120, seed=2)
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.01], [1.0], [5.0]]))
w0 = net.init("normal", runs=8, seed=0)
ensemble = pl.perturbation_ensemble(
    system, w0, eps=[1e-12, 1e-8, 1e-4], n_perturbations=5, n_steps=600, perturb="weights"
)

# %%
# :func:`pylyap.plotting.plot_ensemble` draws the mean distance over the copies, medians over the
# runs with quartiles.
pl.plotting.plot_ensemble(ensemble)

# %%
# The mean distance at the end relative to that at the start:
factor = ensemble.mean[..., -1] / ensemble.mean[..., 0]
for rate, row in zip((0.01, 1.0, 5.0), np.median(factor, axis=1), strict=True):
    print(f"learning rate {rate:4}:", "  ".join(f"{value:.2g}" for value in row))

# %%
# Without a perturbation distances are exactly zero:
same = pl.perturbation_ensemble(system, w0, eps=0.0, n_perturbations=2, n_steps=200)
print("largest distance without a perturbation:", same.distances.max())

# %%
# At a rate of 0.01 distances do not change by more than 12 % in 600 steps, whatever the size:
# training is marginally stable. At a rate of 1 all sizes grow exponentially and saturate after 50
# to 150 steps at the same distance, that of unrelated runs; the size only shifts the time. At a
# rate of 5 growth comes in bursts, and distances of initially 1e-12 have not saturated after 600
# steps.
