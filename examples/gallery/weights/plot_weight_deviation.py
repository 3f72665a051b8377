r"""
Weight deviations as a function of the initial weight
=====================================================

Do all weights move by the same amount, or does it depend on where they started?

The deviation is :math:`\delta = w_f - w_i`. Its mean, spread, skewness and kurtosis as functions
of :math:`w_i` show more than a single number: in wide ReLU networks most weights stay near their
start, and large weights are the ones whose deviations are skewed outwards (Jesus, Antunes, da
Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246, 2021). :func:`pylyap.weight_deviation`
computes these statistics for each layer and bin; the moments are those of the sample, the peak is
Venter's estimate.
"""

# %%
# Twelve networks with two hidden layers of 32 units, pooled:
import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
net = pl.Network((4, 32, 32, 3), activation="relu", loss="cross_entropy")
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=16))
w_i = net.init("glorot_uniform", runs=12, seed=0)
w_f = system.trajectory(w_i, 2000, every=2000)[:, -1]
deviation = pl.weight_deviation(w_i, w_f, net, pool=True, bins=20)

# %%
# :func:`pylyap.plotting.plot_deviation`: quantiles of the deviation above, its moments below.
pl.plotting.plot_deviation(deviation, scopes=["layer 0", "layer 1"])

# %%
for scope, rms, mean, skew in zip(
    deviation.scopes, deviation.rms, deviation.mean, deviation.skewness, strict=True
):
    print(f"{scope}: rms {rms:.3f}, mean {mean:+.4f}, skewness {skew:+.2f}")

# %%
# Half of the weights between the hidden layers (layer 1) hardly move: the quartiles of the
# deviation are close to zero for all initial weights. The deviation has heavy tails, with an
# excess kurtosis of 3 to 13, and its skewness increases with the initial weight, from below 0 for
# the most negative weights to above 1 for positive ones: the tails point outwards. In the first
# layer, which has only four inputs, weights move three times as far.
