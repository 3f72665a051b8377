r"""
Training by epochs, with checkpoints
====================================

How do loss, accuracy and the distance from the initial weights develop, and how does a long
training survive an interruption?

:func:`pylyap.train` trains many runs by epochs and records losses and accuracies, also on test
data, and the root mean square of :math:`w - w(0)`. Wide networks learn while their weights hardly
move; how far they move is one mark of trainability (Jesus, Antunes, da Costa, Dorogovtsev,
Mendes, Aguiar, Mathematics 9, 2246, 2021). With ``checkpoint=`` training resumes from a file,
with the same bits as without the interruption.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np

import pylyap as pl

X, y = pl.datasets.iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
X, y, *test = pl.datasets.split(X, y, 120)
net = pl.Network((4, 16, 16, 3), activation="relu", loss="cross_entropy")
rates = pl.GradientDescent(lr=[[0.01], [0.1]], batch_size=16)
system = pl.TrainingMap(net, X, y, rates)
w0 = net.init("glorot_uniform", runs=12, seed=0)
history = pl.train(system, w0, 100, test=test)

# %%
# :func:`pylyap.plotting.plot_history`: medians over 12 runs with quartiles; test data are dashed.
pl.plotting.plot_history(history)

# %%
# Forty epochs, then the other sixty in a second call that finds the checkpoint of the first:
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "training.npz"
    pl.train(system, w0, 40, test=test, checkpoint=file)
    resumed = pl.train(system, w0, 100, test=test, checkpoint=file)
print("the same bits as without an interruption:", np.array_equal(resumed.state, history.state))
for i, rate in enumerate((0.01, 0.1)):
    accuracy = np.median(history.test_accuracy[i, :, -1])
    print(f"learning rate {rate}: loss {np.median(history.train_loss[i, :, -1]):.3f},", end=" ")
    print(
        f"test accuracy {accuracy:.3f}, deviation {np.median(history.deviation[i, :, 0, -1]):.3f}"
    )

# %%
# At a rate of 0.1 the training loss falls to 0.05 and the weights move twice as far as at 0.01,
# where it is still 0.24. The test loss (dashed) at the larger rate stays above the training loss
# in the second half. The training that was resumed after 40 epochs ends with the same bits as the
# one without an interruption.
