r"""
Autocorrelation and periods of the loss
=======================================

The loss jumps from step to step. Is it a cycle, noise, or chaos?

The autocorrelation of a periodic series returns to 1 at each multiple of the period; that of a
chaotic one decays. A null hypothesis is needed to tell a small correlation from none: shuffled
copies of the series have the same values without any order, and their quantiles give a band
(Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957, 2024). :func:`pylyap.autocorrelation`
computes both, and :func:`pylyap.find_period` the period with which a series repeats, apart from a
slow drift.
"""

# %%
# Training at a learning rate of 5, far above the stability threshold: the loss of 20 runs after
# 4000 steps.
import pylyap as pl

net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
X, y, *_ = pl.datasets.split(*pl.datasets.iris(), 120, seed=2)
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=5.0))
late = system.trajectory(net.init("normal", runs=20, seed=0), 4000, every=4000)[:, -1]
loss = system.loss(system.trajectory(late, 1000, start=4000))
period = pl.find_period(loss)
print("periods of the 20 runs (0: none):", period.tolist())

# %%
# Run 0 is a cycle. :func:`pylyap.plotting.plot_autocorrelation` shows the series, here its first
# 100 steps, and the autocorrelation of all of it.
cycle = pl.autocorrelation(loss[0], max_lag=60)
pl.plotting.plot_autocorrelation(cycle, loss[0, :100], title=f"run 0: period {period[0]}")

# %%
# Run 7 has no period.
irregular = pl.autocorrelation(loss[7], max_lag=60)
pl.plotting.plot_autocorrelation(irregular, loss[7, :100], title="run 7: no period")

# %%
# The tangent space tells whether it is chaotic.
spectrum = pl.lyapunov_spectrum(system, late[[0, 7]], 1000, k=1, start=4000)
for run, value, error in zip((0, 7), spectrum.exponents[:, 0], spectrum.stderr[:, 0], strict=True):
    print(f"run {run}: largest exponent {value:+.3f} ± {error:.3f} nats per step")
print(f"run 7: the autocorrelation is inside the band from lag {irregular.decorrelation}")

# %%
# The loss of run 0 repeats every three steps, and its autocorrelation returns to nearly 1 at each
# multiple of 3; its exponent is zero. The loss of run 7 is a chaotic series: the exponent is 0.24
# nats per step, and the correlation is inside the band of the shuffled series for the first time
# at lag 4. Weak correlations with a spacing of a few steps remain beyond it.
