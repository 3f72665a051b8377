"""Models of PyTorch for tests, in float64, with their data."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import pylyap as pl


class Case(NamedTuple):
    model: Any
    X: Any
    y: Any
    loss: Any


class Transformer(nn.Module):
    """Two encoder layers over tokens, with attention and LayerNorm."""

    def __init__(self, width: int = 4, tokens: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        layer = nn.TransformerEncoderLayer(width, 2, 6, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, X: Any) -> Any:
        return self.head(self.encoder(self.embed(X)).mean(dim=1))


class Recurrent(nn.Module):
    """A GRU over a sequence; its last state is read."""

    def __init__(self, inputs: int = 2, width: int = 3) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, X: Any) -> Any:
        return self.head(self.gru(X)[0][:, -1])


class Tied(nn.Module):
    """An autoencoder with the same matrix in both layers, and a part that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2, bias=False)
        self.second = nn.Linear(3, 2, bias=False)
        self.second.weight = self.first.weight
        self.shift = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("scale", torch.full((3,), 0.7))

    def forward(self, X: Any) -> Any:
        return torch.tanh(self.first(X)) @ self.second.weight * self.scale + self.shift


def images(samples: int) -> tuple[Any, Any]:
    """Images (samples, 1, 8, 8) of a bar whose place is the label, with noise, and labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=samples)
    X = rng.uniform(0.0, 0.5, size=(samples, 1, 8, 8))
    X[np.arange(samples), 0, y % 8, :] += 0.5
    X[np.arange(samples), 0, :, y // 2] += 0.3
    return X, y


def cnn(channels: tuple[int, int] = (8, 16)) -> Any:
    a, b = channels
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), nn.Tanh(),
        nn.Conv2d(a, b, 3, stride=2, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * b, 10),
    )  # fmt: skip


def dense(activation: Any = nn.Tanh, layers: tuple[int, ...] = (2, 4, 3, 2)) -> Any:
    pieces: list[Any] = []
    for n_in, n_out in pairwise(layers):
        pieces += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*pieces[:-1])


def case(name: str, samples: int = 12) -> Case:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if name == "cnn":
        return Case(cnn().double(), *images(128), "cross_entropy")
    if name == "small cnn":
        return Case(cnn((2, 3)).double(), *images(24), "cross_entropy")
    if name == "transformer":
        X = rng.integers(5, size=(samples, 4))
        return Case(Transformer().double(), X, rng.integers(3, size=samples), "cross_entropy")
    if name == "gru":
        X = rng.normal(size=(samples, 4, 2))
        return Case(Recurrent().double(), X, rng.normal(size=(samples, 1)), nn.MSELoss())
    if name == "tied":
        X = rng.normal(size=(samples, 3))
        return Case(Tied().double(), X, X, nn.MSELoss())
    assert name == "dense", name
    X, y = rng.normal(size=(samples, 2)), rng.integers(2, size=samples)
    return Case(dense().double(), X, y, "cross_entropy")


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    "heavy ball of pylyap": lambda p: pl.GradientDescent(lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov of pylyap": lambda p: pl.GradientDescent(lr=0.05, momentum=0.9, nesterov=True),
    "adam of pylyap": lambda p: pl.Adam(lr=0.01, weight_decay=0.05),
}


def function_of(loss: Any) -> Any:
    """A loss by torch alone."""
    if loss == "cross_entropy":
        return nn.functional.cross_entropy
    return loss if loss != "mse" else lambda a, b: 0.5 * ((a - b) ** 2).sum() / len(a)


def tensors(c: Case) -> tuple[Any, Any]:
    return torch.as_tensor(c.X), torch.as_tensor(c.y)


def trained(c: Case, optimizer: Any, steps: int, batches: Any = None) -> Any:
    """Parameters (steps + 1, n_params) of torch's own loop."""
    X, y = tensors(c)
    function = function_of(c.loss)
    parameters = [p for p in c.model.parameters() if p.requires_grad]
    path = [torch.cat([p.detach().reshape(-1) for p in parameters])]
    for t in range(steps):
        chosen = slice(None) if batches is None else batches(t)
        optimizer.zero_grad()
        function(c.model(X[chosen]), y[chosen]).backward()
        optimizer.step()
        path.append(torch.cat([p.detach().reshape(-1) for p in parameters]))
    return torch.stack(path).numpy()
