r"""
Hénon map: exponents, covariant vectors, dimension
==================================================

Does the machinery give the textbook values of a map that is no training?

:class:`pylyap.DiscreteMap` makes a map of two functions, the step and its Jacobian. For the Hénon
map :math:`x' = 1 - 1.4x^2 + y,\ y' = 0.3x` the exponents are 0.419 and -1.623 (Sprott, Chaos and
Time-Series Analysis, 2003), and their sum is exactly :math:`\ln 0.3`. The Kaplan-Yorke dimension
(Lect. Notes Math. 730, 204, 1979) estimates the information dimension of the attractor from the
exponents alone: :math:`1 + \lambda_1/|\lambda_2|`.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import pylyap as pl

henon = pl.DiscreteMap(
    lambda x: (1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]),
    lambda x: ((-2.8 * x[0], 1.0), (0.3, 0.0)),
    n=2,
    compiled=True,
)
spectrum = pl.lyapunov_spectrum(henon, [0.1, 0.1], 100_000, n_transient=100, record_every=10)
for i in range(2):
    print(
        f"exponent {i + 1}: {spectrum.exponents[i]:+.4f} ± {spectrum.stderr[i]:.4f} nats per step"
    )
print(f"sum - ln 0.3 = {spectrum.exponents.sum() - np.log(0.3):.1e}")
print(f"Kaplan-Yorke dimension {pl.kaplan_yorke_dimension(spectrum.exponents):.4f}")

# %%
# The attractor, with the two covariant vectors at some of its points: the expanding one is
# tangent to the attractor.
vectors = pl.covariant_lyapunov_vectors(henon, [0.1, 0.1], 4000, n_transient=100, n_tail=100)
x = vectors.states
shown = np.random.default_rng(1).choice(4000, 40, replace=False)
fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.plot(x[:, 0], x[:, 1], ".", ms=1, color="0.6")
for i, (color, name) in enumerate((("#440154", "expanding"), ("#35b779", "contracting"))):
    ends = 0.06 * vectors.vectors[shown, :, i]
    a, b = x[shown] - ends, x[shown] + ends
    ax.plot([a[:, 0], b[:, 0]], [a[:, 1], b[:, 1]], color=color, lw=1.5)
    ax.plot([], [], color=color, label=name)
ax.set(xlabel="x", ylabel="y")
_ = ax.legend(frameon=False, loc="upper right")

# %%
# Both exponents agree with the textbook within their standard errors, their sum with :math:`\ln
# 0.3` to rounding, and the dimension is 1.258. The expanding vectors (dark) are tangent to the
# attractor at all of the points, and the contracting ones cross it; near the turning point on the
# right the two become nearly parallel.
