r"""
Thresholds of momentum
======================

Where is the edge of stability of optimisers with momentum?

The heavy ball with momentum :math:`\beta` is stable on a parabola up to the curvature
:math:`2(1+\beta)/\eta`, Nesterov's form up to :math:`2(1+\beta)/(\eta(1+2\beta))`. Training with
full batches settles at the threshold of its own optimiser (Cohen et al., ICLR 2021,
arXiv:2103.00065). ``ratio`` of :func:`pylyap.sharpness_along` is the sharpness divided by this
threshold, which includes momentum, weight decay and schedules.
"""

# %%
# The same network, data and initial weights for three optimisers:
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
net = pl.Network((4, 20, 3), activation="tanh", loss="mse")
w0 = net.init("glorot_uniform", seed=2)
optimizers = {
    "gradient descent": pl.GradientDescent(lr=0.4),
    "heavy ball, β = 0.5": pl.GradientDescent(lr=0.4, momentum=0.5),
    "Nesterov, β = 0.5": pl.GradientDescent(lr=0.4, momentum=0.5, nesterov=True),
}
found = {
    name: pl.sharpness_along(pl.TrainingMap(net, X, np.eye(3)[y], optimizer), w0, 2000, every=20)
    for name, optimizer in optimizers.items()
}

# %%
# The sharpness itself, with each threshold dashed:
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for (name, s), color in zip(found.items(), ("#440154", "#21918c", "#8fd744"), strict=True):
    ax.plot(s.steps, s.value, color=color, label=name)
    ax.axhline(np.median(s.threshold), color=color, linestyle="--", linewidth=1)
ax.set(xlabel="optimiser step", ylabel="sharpness", ylim=(0, 8))
_ = ax.legend(frameon=False, loc="lower right")

# %%
# The same relative to the threshold, :func:`pylyap.plotting.plot_sharpness`:
fig, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for (name, s), ax in zip(found.items(), axes, strict=True):
    pl.plotting.plot_sharpness(s, ax=ax, title=name)
    ratio = s.ratio[-20:].mean()
    print(f"{name}: threshold {np.median(s.threshold):.2f}, late ratio {ratio:.3f}")
for ax in axes[1:]:
    ax.set_ylabel("")

# %%
# With the same learning rate the three optimisers settle at three different values of the
# sharpness, each within 3 % of its own threshold: 5 for gradient descent, 7.5 for the heavy ball
# and 3.75 for Nesterov's form. Relative to the threshold the curves coincide at 1.
