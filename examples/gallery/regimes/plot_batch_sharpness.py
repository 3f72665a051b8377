r"""
Batch sharpness
===============

Which curvature limits training with minibatches?

With minibatches the sharpness of the whole loss settles below the threshold :math:`2/\eta`, the
lower the smaller the batches. The expected curvature of the loss of a minibatch along its own
gradient, the batch sharpness, settles nearer to :math:`2/\eta` (Andreyev, Beneventano,
arXiv:2412.20553).
"""

# %%
# Handwritten digits, batches of 8, 16 and 32 of 300 samples. Both kinds of sharpness along the same
# runs:
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

X, y, _, _ = pl.datasets.split(*pl.datasets.digits(), 300, seed=0)
X, y = X - X.mean(axis=0), np.eye(10)[y]
net = pl.Network((64, 16, 10), activation="tanh", loss="mse")
w0 = net.init("glorot_uniform", seed=0)
kinds, sizes = ("hessian", "batch"), (8, 16, 32)
found = {}
for size in sizes:
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.8, batch_size=size))
    for kind in kinds:
        along = pl.sharpness_along(system, w0, 2000, every=200, kind=kind, tol=1e-3)
        found[size, kind] = along

# %%
# Sharpness relative to the threshold: largest eigenvalue of the Hessian (left) and batch sharpness
# (right). :func:`pylyap.plotting.plot_sharpness` draws one of them.
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for kind, ax in zip(kinds, axes, strict=True):
    ax.axhline(1.0, color="0.6", linewidth=0.8)
    for size, color in zip(sizes, ("#440154", "#21918c", "#8fd744"), strict=True):
        s = found[size, kind]
        late = np.median(s.ratio[4:])
        ax.plot(s.steps, s.ratio, color=color, label=f"batches of {size}")
        print(f"{kind}, batches of {size}: late median ratio {late:.2f}")
    ax.set(title=kind, xlabel="optimiser step", ylim=(0, 1.6))
axes[0].set(ylabel="sharpness / threshold")
_ = axes[0].legend(frameon=False)

# %%
# :func:`pylyap.batch_sharpness` computes it at given weights. It is a mean over minibatches, here
# over 100 of them, and has a standard error:
last = system.trajectory(w0, 2000, every=2000)[-1]
batch = pl.batch_sharpness(system, last, t=2000, n_batches=100)
print(f"relative standard error: {batch.stderr / batch.value:.3f}")

# %%
# From batches of 32 to batches of 8 the sharpness of the whole loss falls from 0.93 to 0.66 of the
# threshold, the batch sharpness only from 0.79 to 0.65, and it still rises: the noise of small
# batches keeps training in flatter regions.
