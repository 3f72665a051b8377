"""How it is computed: the formulations of each package that are tried for a workload."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass, field, replace

from .workloads import (
    Ensemble,
    Henon,
    Landscape,
    Model,
    Product,
    Propagator,
    Sgd,
    Sharpness,
    Workload,
)

MAX_COLUMNS = 20  # the full Hessian is a candidate if n is at most this many times k


@dataclass(frozen=True)
class Formulation:
    """A way to do the work: the package, the line of the table, the function and its options."""

    package: str
    line: str
    builder: str
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(self.options.values())


def formulations(work: Workload, qr: str = "QR") -> list[Formulation]:
    """All formulations of a workload with the library's QR; for others see `other_qr`."""
    if isinstance(work, Product):
        return [Formulation("numpy", "dgemm", "dgemm")]
    if isinstance(work, Henon):
        kind = "vectors" if work.vectors else "spectrum"
        compiled = ["python", "numba"] if importlib.util.find_spec("numba") else ["python"]
        ways = {
            "pylyap": [*compiled, "numba tuple"],
            "lyapynov": compiled,
            "pynamicalsys": ["numba"],
        }
        if work.vectors:
            ways["clvlib"] = compiled
        return [
            Formulation(
                package, package, f"{package}_henon_{kind}", {"callables": f"{how} callables"}
            )
            for package, hows in ways.items()
            for how in hows
        ]
    if isinstance(work, Model):
        ways = ["vmap of jvp", "double backward", "batched double backward"]
        return [
            Formulation("torch", "pylyap", "pylyap_model"),
            *(
                Formulation("torch", "PyTorch, by hand", "torch_model", {"tangent": way})
                for way in ways
            ),
        ]
    if isinstance(work, Propagator):
        if work.whole:
            hows = [{"columns": columns} for columns in ("all", "blocks of 128")]
        else:
            hows = [{"method": method} for method in ("block Krylov", "LOBPCG")]
        return [
            Formulation("pylyap", "pylyap", "pylyap_propagator"),
            *(
                Formulation("jax", line, "jax_propagator", {"tangent": tangent, **how})
                for line, tangents in (
                    ("JAX, autodiff", ("jvp", "linearize")),
                    ("JAX, by hand", ("R-operator",)),
                )
                for tangent in tangents
                for how in hows
            ),
        ]
    if isinstance(work, Landscape):
        hows = ["vmap of grad", "by hand"]
        chunks = [f"{how}, chunks of {m}" for how in hows for m in (8, 32)]
        return gradients("landscape", {"jax": [*hows, *chunks]}, {"jax": "JAX"})
    if isinstance(work, Sgd):
        ways = {"jax": ["grad", "matmul"], "torch": ["autograd", "by hand"]}
        return gradients("sgd", ways, {"jax": "JAX", "torch": "PyTorch"})
    if isinstance(work, Ensemble):
        ways = {"jax": ["vmap(grad)", "matmul", "einsum"], "torch": ["matmul"], "numpy": ["matmul"]}
        lines = {"jax": "JAX", "torch": "PyTorch", "numpy": "NumPy, by hand"}
        return gradients("ensemble", ways, lines)
    if isinstance(work, Sharpness):
        names = ("gradient", "runs", "orthogonal")
        ways = itertools.product(["jvp", "linearize"], ["singly", "vmap"], ["once", "twice"])
        return [
            Formulation("pylyap", "pylyap", "pylyap_sharpness"),
            *(
                Formulation(
                    "jax", "JAX, autodiff", "jax_sharpness", dict(zip(names, way, strict=True))
                )
                for way in ways
            ),
        ]
    dense = work.n <= MAX_COLUMNS * work.k
    deep = len(work.layers) > 3  # formulas by hand are those of one hidden layer
    autodiff = ["jvp", "linearize", *(["hessian"] if dense else [])]
    hand = ["R-operator", *(["Hessian blocks"] if dense else [])]
    found = [
        Formulation("pylyap", "pylyap", "pylyap_training"),
        Formulation("jax", "pylyap, from_jax", "bridge_training"),
        Formulation("lyapax", "lyapax", "lyapax_training"),
    ]
    if work.runs <= 4:
        found.append(Formulation("chaotax", "chaotax", "chaotax_training"))
    for package, name in (("jax", "JAX"), ("torch", "PyTorch")):
        for kind, tangents in (("autodiff", autodiff), ("by hand", [] if deep else hand)):
            for tangent, runs in itertools.product(tangents, ["singly", "vmap"]):
                if package == "torch" and (
                    tangent == "linearize"  # traces the function at every step
                    or (runs == "singly" and work.runs > 4)  # Python overhead for every run
                ):
                    continue
                options = {"tangent": tangent, "runs": runs, "qr": qr}
                found.append(
                    Formulation(package, f"{name}, {kind}", f"{package}_training", options)
                )
    found += [
        Formulation("numpy", "NumPy, by hand", "numpy_training", {"tangent": t, "qr": qr})
        for t in ([] if deep else hand)
    ]
    if work.momentum:  # the other lines are those of plain gradient descent
        found = [f for f in found if f.builder in ("pylyap_training", "jax_training")]
    return found


def gradients(kind: str, ways: dict[str, list[str]], lines: dict[str, str]) -> list[Formulation]:
    """pylyap, and each package with its ways to compute a gradient."""
    return [
        Formulation("pylyap", "pylyap", f"pylyap_{kind}"),
        *(
            Formulation(package, lines[package], f"{package}_{kind}", {"gradient": how})
            for package, hows in ways.items()
            for how in hows
        ),
    ]


def other_qr(formulation: Formulation) -> list[Formulation]:
    """The same tangents with the other orthonormalisations."""
    methods = {
        "jax": ["CholeskyQR2", "MGS", "panel GS"],
        "torch": ["CholeskyQR2"],
        "numpy": ["CholeskyQR2"],
    }
    if "qr" not in formulation.options:
        return []
    return [
        replace(formulation, options={**formulation.options, "qr": qr})
        for qr in methods[formulation.package]
    ]
