r"""
Prediction skill of an early exponent
=====================================

Can the first 50 of 5000 steps tell which runs will end with a high loss?

Runs of small networks end in distinct clusters of the final loss. An indicator that is known
early predicts the cluster if it separates the runs; its skill is the area under the ROC curve
(AUC), the probability that a run that ends high has the larger indicator. One half is chance.
Sharafi, Martin and Hallerberg (Phys. Rev. E 111, 054208, 2025) use finite-time Lyapunov
exponents. :func:`pylyap.prediction_skill` adds DeLong's confidence interval (Biometrics 44, 837,
1988); the early loss is the reference that an exponent has to beat.
"""

# %%
import matplotlib.pyplot as plt

import pylyap as pl

net = pl.Network((2, 3, 1), activation="tanh")
system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
w0 = net.init("he_normal", runs=300, seed=0)
early = pl.lyapunov_spectrum(system, w0, 50, record_every=50)
final_loss = system.loss(system.trajectory(early.state, 4950, every=4950, start=50)[:, -1])
exponent = pl.prediction_skill(-early.growth[:, 0, -1], final_loss)
loss = pl.prediction_skill(early.loss[:, -1], final_loss)

# %%
# :func:`pylyap.plotting.plot_skill` draws the ROC curves: the most contracting exponent (its sign
# is changed) and the loss, both known after 50 steps.
fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
pl.plotting.plot_skill(exponent, ax=axes[0], title="contraction rate")
_ = pl.plotting.plot_skill(loss, ax=axes[1], title="loss")

# %%
print(f"final losses above {exponent.threshold:.3g} are high: {exponent.n_high} of 300 runs")
for name, skill in (("contraction rate", exponent), ("loss", loss)):
    print(f"{name}: AUC {skill.auc:.2f}, 95 % interval {skill.low:.2f} to {skill.high:.2f}")

# %%
# After one hundredth of the training, the loss does not predict the outcome: its interval
# contains one half. The contraction rate does: a run that will end high has the more negative
# exponent with a probability of 0.78, since it starts in a region of larger curvature.
