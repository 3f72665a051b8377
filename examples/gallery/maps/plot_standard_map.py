r"""
Standard map: a picture of order and chaos
==========================================

Which initial conditions of an area-preserving map are regular, and which are chaotic?

The standard map :math:`p' = p + K\sin\theta,\ \theta' = \theta + p'` has regular islands within a
chaotic sea (Chirikov, Phys. Rep. 52, 263, 1979). The finite-time Lyapunov exponent of each
initial condition tells them apart: it decays as :math:`\ln t / t` for regular orbits and stays
positive for chaotic ones. The map preserves areas, so that its two exponents sum to zero.
``compiled=True`` compiles the functions with Numba; thousands of orbits then take a second.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

K = 1.2
standard = pl.DiscreteMap(
    lambda x: ((x[0] + x[1] + K * np.sin(x[0])) % (2 * np.pi), x[1] + K * np.sin(x[0])),
    lambda x: ((1.0 + K * np.cos(x[0]), 1.0), (K * np.cos(x[0]), 1.0)),
    n=2,
    compiled=True,
)
theta, p = np.linspace(0, 2 * np.pi, 160), np.linspace(-np.pi, np.pi, 160)
starts = np.stack(np.meshgrid(theta, p), axis=-1)
spectrum = pl.lyapunov_spectrum(standard, starts, n_steps=300, record_every=300)
leading = spectrum.exponents[..., 0]

# %%
fig, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
mesh = ax.pcolormesh(theta, p, leading, cmap="magma", vmin=0, rasterized=True)
fig.colorbar(mesh, label="finite-time exponent of 300 steps, nats per step")
_ = ax.set(xlabel="angle θ", ylabel="momentum p", title=f"standard map, K = {K}")

# %%
print(f"largest |sum of both exponents| {abs(spectrum.exponents.sum(axis=-1)).max():.1e}")
print(f"exponent above 0.05: {np.mean(leading > 0.05):.0%} of the initial conditions")

# %%
# The black areas are islands of regular orbits, the largest around the stable fixed point at
# :math:`\theta = \pi,\ p = 0`; the bright area is the chaotic sea, with 56 % of the initial
# conditions above 0.05 nats per step. Orbits at the borders of the islands stick there for a
# while and have intermediate values. The two exponents of every orbit sum to zero to rounding.
