r"""
Hyperbolicity: angles between expanding and contracting directions
==================================================================

Are expanding and contracting directions separated at all times, or do they become tangent?

In a uniformly hyperbolic system the angle between the subspace of the growing covariant vectors
and that of the shrinking ones is bounded away from zero, and predictions from the tangent space
hold for small finite perturbations, too. Tangencies of the two subspaces break this. The angle
follows from covariant Lyapunov vectors (Ginelli et al., Phys. Rev. Lett. 99, 130601, 2007). A
second measure is domination: in a dominated splitting each vector of the first subspace grows
more than each of the second, at all times (Bochi, Viana, Ann. Math. 161, 1423, 2005).
"""

# %%
# Two families of maps of the plane with the same Jacobian determinant: the Hénon map, whose
# chaotic attractor has tangencies, and the piecewise linear Lozi map, whose attractor has none.
# Each is followed from 30 initial states.
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

henon = pl.DiscreteMap(
    lambda x: (1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]),
    lambda x: ((-2.8 * x[0], 1.0), (0.3, 0.0)),
    n=2,
    compiled=True,
)
lozi = pl.DiscreteMap(
    lambda x: (1.0 - 1.7 * abs(x[0]) + x[1], 0.3 * x[0]),
    lambda x: ((-1.7 * np.sign(x[0]), 1.0), (0.3, 0.0)),
    n=2,
    compiled=True,
)
starts = np.random.default_rng(0).uniform(-0.1, 0.1, (30, 2))
vectors = {
    name: pl.covariant_lyapunov_vectors(system, starts, 2000, n_transient=200, n_tail=200)
    for name, system in {"Hénon": henon, "Lozi": lozi}.items()
}

# %%
# The distribution of the angle between the two vectors:
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, found), color in zip(vectors.items(), ("#440154", "#35b779"), strict=True):
    angle = np.degrees(found.angles()).ravel()
    ax.hist(
        angle,
        np.linspace(0, 90, 91),
        density=True,
        histtype="step",
        color=color,
        lw=1.5,
        label=name,
    )
ax.set(xlabel="angle between the covariant vectors, degrees", ylabel="density", xlim=(0, 90))
_ = ax.legend(frameon=False)

# %%
# ``hyperbolicity(split=1)`` keeps the smallest angle along each run and the fraction of the steps
# in which the first vector grows more.
for name, found in vectors.items():
    h = found.hyperbolicity(split=1)
    print(f"{name}: smallest angle {np.degrees(h.angle.min()):.2g} degrees,", end=" ")
    print(f"dominated in {np.mean(h.dominated):.0%} of the steps")

# %%
# The same measures for training: gradient descent at three learning rates, split after the first
# vector, :func:`pylyap.plotting.plot_hyperbolicity`.
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
rates = pl.GradientDescent(lr=[[0.5], [2.0], [5.0]])
system = pl.TrainingMap(net, *pl.datasets.iris(), rates)
training = pl.covariant_lyapunov_vectors(
    system, net.init("normal", runs=24, seed=0), 200, k=4, n_transient=100, n_tail=100
)
h = training.hyperbolicity(split=1)
print("runs with an angle below one degree:", (np.degrees(h.angle) < 1).sum(axis=1), "of 24")
print("dominated in fewer than half of the steps:", (h.dominated < 0.5).sum(axis=1), "of 24")
pl.plotting.plot_hyperbolicity(h)

# %%
# The Hénon map has angles down to 0.002 degrees, tangencies within the resolution of this sample.
# The angle of the Lozi map never falls below 45 degrees, and the splitting is dominated at every
# step, although both maps have the same determinant. Training is far from hyperbolic: in about
# half of the runs the first vector comes within one degree of the span of the next three, and in
# most runs it grows more than all of them in less than half of the steps.
