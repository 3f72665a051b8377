from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

import pylyap as pl

from . import digits
from .peers.model_runs import module, pylyap_model, torch_model
from .peers.workloads import WORKLOADS, Model

TANGENTS = ("vmap of jvp", "double backward", "batched double backward")
KINDS = {work.kind: work for work in WORKLOADS.values() if isinstance(work, Model)}


STEPS = {"cnn": 5, "mlp": 2}


class TorchModel:
    """Ten exponents of models of PyTorch: a convolutional net, and one of 10⁵ parameters."""

    params = (list(KINDS),)
    param_names = ("model",)

    def setup(self, kind: str) -> None:
        try:
            import sklearn  # noqa: F401
            import torch  # noqa: F401
        except ImportError:
            raise NotImplementedError("needs torch and scikit-learn") from None
        self.work = replace(KINDS[kind].with_data(), steps=STEPS[kind])
        self.run = pylyap_model(self.work)

    def time_spectrum(self, kind: str) -> None:
        self.run()

    def peakmem_spectrum(self, kind: str) -> None:
        self.run()

    def track_ratio(self, kind: str) -> float:
        """Time of pylyap over that of the fastest loop by hand, in alternation."""
        runs = [self.run, *(torch_model(self.work, tangent) for tangent in TANGENTS)]
        best = np.full(len(runs), np.inf)
        for _ in range(4):
            for i, run in enumerate(runs):
                if best[i] < 2.0 * best[1:].min() or not np.isfinite(best[i]):
                    begin = time.perf_counter()
                    run()
                    best[i] = min(best[i], time.perf_counter() - begin)
        return float(best[0] / best[1:].min())

    def track_adjoint_law(self, kind: str) -> float:
        """⟨u, J v⟩ = ⟨Jᵀ u, v⟩."""
        system, w0 = pl.from_torch(*with_adam(self.work), jvp="loop")
        x = np.concatenate([w0, np.zeros(system.n - len(w0))])
        u, v = np.random.default_rng(0).normal(size=(2, system.n))
        found = system.adjoint(x, u) @ v, u @ system.tangent(x, v)
        return digits(abs(found[0] - found[1]) / np.abs(found[0]))

    track_adjoint_law.unit = "digits"


def with_adam(work: Model) -> tuple[object, ...]:
    """Arguments of `from_torch` with Adam of torch."""
    import torch

    model = module(work)
    return model, work.X, work.y, "cross_entropy", torch.optim.Adam(model.parameters())


class Monitor:
    """Cost of `TangentMonitor` per tangent vector, in training steps of the same loop."""

    params = ([2, 10],)
    param_names = ("k",)

    def setup(self, k: int) -> None:
        try:
            import torch
        except ImportError:
            raise NotImplementedError("needs torch") from None
        torch.set_num_threads(1)
        self.steps = 20
        work = KINDS["cnn"].with_data()
        self.model, X, y, _, self.optimizer = with_adam(work)
        self.batch = torch.as_tensor(X), torch.as_tensor(y)
        self.monitor = pl.TangentMonitor(self.model, "cross_entropy", self.optimizer, k=k)
        self.train()

    def train(self) -> tuple[float, float]:
        """Processor time of some steps of training, and of the monitor after each."""
        import torch

        X, y = self.batch
        trained = carried = 0.0
        for _ in range(self.steps):
            begin = time.process_time()
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(X), y).backward()
            self.optimizer.step()
            between = time.process_time()
            self.monitor.step(self.batch)
            trained += between - begin
            carried += time.process_time() - between
        return trained, carried

    def track_steps_per_vector(self, k: int) -> float:
        """Time of `monitor.step`, over that of a step of training and over k."""
        times = [self.train() for _ in range(5)]
        return float(np.median([carried / trained for trained, carried in times])) / k

    track_steps_per_vector.unit = "training steps"
