r"""
Expansion rates from a scalar series
====================================

Can the exponent be estimated from a recorded series alone, such as the loss of a training whose
weights were not kept?

If the series returns near a value it had before, the two continuations are like a trajectory and
its perturbed copy. Their mean distance :math:`d_n = \langle|x_{i+n} - x_{j+n}|\rangle` grows as
:math:`e^{\Lambda n}` while it is small (Rosenstein, Collins, De Luca, Physica D 65, 117, 1993).
The published study applies this to the loss, without a Theiler window and with the line of the
largest R² for each reference point (Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957,
2024); both choices bias the rate. :func:`pylyap.expansion_rates` has options without these
biases.
"""

# %%
# First the logistic map, whose exponent is ln 2.
import numpy as np

import pylyap as pl

logistic = pl.DiscreteMap(
    lambda x: (4.0 * x[0] * (1.0 - x[0]),), lambda x: ((4.0 - 8.0 * x[0],),), n=1
)
x = logistic.trajectory([0.3], 20_000)[:, 0]
rates = pl.expansion_rates(
    x, radius=1e-4, n_points=500, horizon=10, theiler=5, window=8, geometric=True
)
print(f"logistic map: {np.nanmean(rates.slope):.3f}, ln 2 = {np.log(2):.3f} nats per step")

# %%
# Then the loss of a training with a learning rate of 5: a run that is chaotic for tens of
# thousands of steps.
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y, *_ = pl.datasets.split(*pl.datasets.iris(), 120, seed=2)
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=5.0))
w0 = net.init("normal", runs=8, seed=0)[7]
late = system.trajectory(w0, 4000, every=4000)[-1]
loss = system.loss(system.trajectory(late, 10_000, start=4000))
spectrum = pl.lyapunov_spectrum(system, late, 10_000, k=1, start=4000, record_every=100)
print(f"exponent: {spectrum.exponents[0]:.3f} ± {spectrum.stderr[0]:.3f} nats per step")

# %%
# The published rule needs a larger radius here, since the loss of this run varies by more than 1.
# Its result is the mean over the reference points whose growth is exponential. The options vary
# what counts as a return and which steps are fitted.
published = pl.expansion_rates(loss, radius=1e-3, n_points=500)
print(f"published rule: {np.nanmean(published.slope[published.exponential]):.2f} nats per step")
for dimension, radius in ((1, 1e-3), (3, 3e-3), (5, 1e-2)):
    rates = pl.expansion_rates(
        loss, radius, 500, horizon=15, theiler=20, window=6, geometric=True, dimension=dimension
    )
    print(f"{dimension} consecutive values within {radius:g}: {np.nanmedian(rates.slope):.2f}")

# %%
# :func:`pylyap.plotting.plot_expansion_rates` shows two reference points, the distribution of the
# rates, and the rates against the loss.
pl.plotting.plot_expansion_rates(published, loss)

# %%
# For the logistic map, whose state is the series, the result is ln 2 to three digits. For the
# loss of a training it depends on what counts as a return: 0.2 to 0.6 nats per step beside an
# exponent of 0.22. The left panel shows why. Two states with nearly the same loss need not be
# near each other: the distance increases a hundredfold within two steps, and most of the fitted
# steps are already at saturation. Where the weights are available, use the tangent space.
