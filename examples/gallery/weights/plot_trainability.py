r"""
Trainability against width
==========================

Which widths can be trained, and when does a training that went well diverge?

Networks with two equal hidden layers have regimes of width and time: low trainability for narrow
networks, untrainability, where the loss falls and then rises for good, and high trainability for
wide ones, whose weights deviate little (Jesus et al., Mathematics 9, 2246, 2021).
:func:`pylyap.trainability` labels each run at each record from its training loss;
:class:`pylyap.TrainabilityRule` holds the thresholds.
"""

# %%
# Iris at a learning rate near the limit of stability; ten runs of each width.
import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
X, y, *test = pl.datasets.split(X, y, 120)
histories = []
for width in (2, 4, 8, 16, 32, 64):
    net = pl.Network((4, width, width, 3), activation="relu", loss="cross_entropy_clipped")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=1.5, batch_size=8))
    w0 = net.init("glorot_uniform", runs=10, seed=0)
    histories.append(pl.train(system, w0, epochs=100, test=test))
found = pl.trainability(histories)

# %%
# :func:`pylyap.plotting.plot_trainability`:
pl.plotting.plot_trainability(found)

# %%
for i, width in enumerate(found.widths):
    parts = ", ".join(f"{share[i, -1]:.0%} {phase}" for phase, share in found.share.items())
    print(
        f"width {width:2.0f}: {parts}, mean of the least loss {found.min_train_loss[i].mean():.3f}"
    )

# %%
# The diagram shows for each width and epoch the mixture of the phases over ten runs. Four of ten
# networks of width 2 never learn, and one diverges. In the middle, at width 16, nine of ten runs
# train well. At widths 32 and 64 no run fails to learn, but four of ten lose again what they had
# learnt, between epochs 50 and 70 on average (triangles): this learning rate is too large for
# wide networks. The least loss on the way decreases with the width.
