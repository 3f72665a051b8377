r"""
Which law do distances follow?
==============================

Do perturbations grow exponentially, as a power of time, or not at all?

Exponential growth is the signature of chaos; linear growth is that of shear between orbits of
different frequency; growth with the square root of time is that of diffusion; bounded distances
are those of marginally stable or converging runs. :func:`pylyap.growth_law` fits the four laws to
the logarithm of the mean distance and compares them by Akaike weights, the relative likelihood of
each law with a correction for its number of parameters (Burnham, Anderson, Model Selection and
Multimodel Inference, 2002). A rate that comes without such a comparison may belong to no
exponential growth at all.
"""

# %%
# Four systems: the chaotic logistic map, a shear, the distance of random walks from their start,
# and training at a low learning rate. The law of the first three is known.
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

rng = np.random.default_rng(0)
logistic = pl.DiscreteMap(
    lambda x: 4.0 * x * (1.0 - x), lambda x: (4.0 - 8.0 * x)[..., None], n=1, vectorized=True
)
shear = pl.DiscreteMap(
    lambda x: x @ np.array([[1.0, 0.0], [1.0, 1.0]]),
    lambda x: np.broadcast_to([[1.0, 1.0], [0.0, 1.0]], (len(x), 2, 2)),
    n=2,
    vectorized=True,
)
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
training = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.01))
w0 = net.init("normal", runs=8, seed=0)
distances = {
    "logistic map": pl.perturbation_ensemble(logistic, rng.random((8, 1)), 1e-13, 20, 25),
    "shear": pl.perturbation_ensemble(shear, rng.random((8, 2)), 1e-6, 20, 200),
    "training": pl.perturbation_ensemble(training, w0, 1e-8, 5, 1000, record_every=10),
}
distances = {name: found.distances for name, found in distances.items()}
distances["random walks"] = abs(rng.normal(size=(8, 300, 401)).cumsum(axis=-1))

# %%
# The mean distances relative to the first one, medians over 8 runs:
fig, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for (name, found), ax in zip(distances.items(), axes, strict=True):
    mean = found.mean(axis=1)
    ax.plot(np.median(mean / mean[:, :1], axis=0), color="#31688e")
    ax.set(title=name, xlabel="record")
axes[0].set_yscale("log")
_ = axes[0].set_ylabel("mean distance / first")

# %%
# The best law of each run:
laws = {name: pl.growth_law(found) for name, found in distances.items()}
for name, law in laws.items():
    kinds, counts = np.unique(law.best, return_counts=True)
    print(f"{name}: " + ", ".join(f"{n} {x}" for x, n in zip(kinds, counts, strict=True)))
exponential = laws["training"].parameters[:, 0, 1]
print(f"training: median rate of the exponential {np.median(exponential):.1e} nats per record")

# %%
# Akaike weights of the training, :func:`pylyap.plotting.plot_growth_law`:
pl.plotting.plot_growth_law(laws["training"], title="training")

# %%
# The first three laws are found: exponential growth in all runs of the logistic map, linear
# growth in all of the shear, and the square root of time in seven of eight sets of random walks.
# In training at a low rate the distances change by 3 % only. The exponential is the best of the
# four laws for seven of eight runs, but its rate is 2e-4 nats per record of ten steps: a law that
# fits best does not imply growth that matters. Look at the rate as well.
