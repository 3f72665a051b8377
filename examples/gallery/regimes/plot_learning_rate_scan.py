r"""
From convergence to chaos: a scan of the learning rate
======================================================

In which regime is a training, and where are the borders?

With increasing learning rate, gradient descent passes from convergence through the edge of
stability, where the sharpness stays at the stability threshold and the loss decreases
non-monotonically (Cohen et al., ICLR 2021), to chaos, where the leading Lyapunov exponent is
positive and nothing is learnt, and to periodic cycles and divergence (Danovski, Soriano, Lacasa,
Front. Complex Syst. 2, 1367957, 2024). :func:`pylyap.learning_rate_scan` trains the same initial
weights at each rate and labels each run from its last steps: from its exponent, sharpness,
period, and the fraction of steps in which the loss rises. :class:`pylyap.RegimeRule` holds the
thresholds.
"""

# %%
import numpy as np

import pylyap as pl

net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y = pl.datasets.iris()
rates = np.geomspace(0.05, 10, 12)
scan = pl.learning_rate_scan(net, X, y, rates, 1000, runs=6, init="normal", n_perturbations=2)

# %%
# :func:`pylyap.plotting.plot_scan`:
pl.plotting.plot_scan(scan)

# %%
# Fractions of the runs in each regime:
print("rate     " + "  ".join(scan.share))
for i, rate in enumerate(rates):
    print(
        f"{rate:6.3f}  ",
        "  ".join(f"{part[i]:{len(name)}.2f}" for name, part in scan.share.items()),
    )

# %%
# All runs converge up to a rate of 0.13. From 0.34 to 1.5 they are at the edge of stability: the
# sharpness is at the threshold or above it, the leading exponent is zero, and the losses at late
# steps are the lowest of all. Chaotic runs, with a positive exponent, appear at 2.4 and 3.8,
# where the loss is ten times larger. At the largest rates most runs are periodic with losses
# above that of guessing, ln 3: nothing is learnt.
