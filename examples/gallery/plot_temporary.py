"""
Temporary
=========

A picture.
"""

import pylyap as pl

net = pl.Network((2, 3, 1), activation="tanh")
system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
s = pl.lyapunov_spectrum(system, net.init(runs=8, seed=0), 200, k=3)
pl.plotting.plot_spectrum(s)
