"""The table: parameters, assumptions and results of the four ensembles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pylyap.papers.sharafi2025.definition import HIDDEN, N_POINTS, WINDOW
from pylyap.papers.sharafi2025.indicators import LOSS, STEPS, Prediction


def table(some: Sequence[Prediction]) -> list[list[str]]:
    """Return the table of parameters and results, a column for each ensemble.

    Parameters
    ----------
    some : sequence of Prediction
        Result of `measure_predictions`.

    Returns
    -------
    list of list of str
        Rows; the first holds the names of the columns.
    """
    of = [found.ensemble for found in some]
    steps = [s for s in STEPS if s <= of[0].n_steps]
    rows = [
        ["quantity", *(e.name for e in of)],
        ["runs (published: 4000)", *(str(e.runs) for e in of)],
        ["initial weights", *(_initial(e.kind.init) for e in of)],
        ["points, y = x₁² + x₂² (assumed)", *[str(N_POINTS)] * len(of)],
        ["hidden units, parameters (assumed)", *(f"{HIDDEN}, {e.system.n}" for e in of)],
        ["learning rate, full batch (assumed)", *(f"{e.kind.lr:g}" for e in of)],
        ["steps (assumed)", *(str(e.n_steps) for e in of)],
        ["log₁₀ c_f, median [5–95 %]", *(_spread(e.log_loss) for e in of)],
        ["threshold, log₁₀ c_f", *(f"{np.log10(e.threshold):.2f}" for e in of)],
        ["clusters, log₁₀ c_f: share [95 %]", *(_clusters(p) for p in some)],
        ["runs that end high", *(str(int(e.high.sum())) for e in of)],
    ]
    for i in (0, 1, -3, -2, -1):
        index = i % of[0].exponents.shape[1] + 1
        rows.append([f"λ_{index}, mean ± spread (nats per step)", *(
            _mean(e.exponents[:, i]) for e in of
        )])  # fmt: skip
    rows.append(["sum of λ, mean ± spread", *(_mean(e.exponents.sum(axis=1)) for e in of)])
    for step in steps:
        rows.append([f"AUC of the loss at step {step}", *(_auc(p, LOSS, step) for p in some)])
        rows.append([f"best exponent at step {step}, its AUC", *(_best(p, step) for p in some)])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table.

    Parameters
    ----------
    rows : sequence of sequence of str
        Result of `table`.

    Returns
    -------
    str
        Text that ends with a line feed.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    note = (
        f"AUC with 95 % intervals (DeLong); exponents over the {WINDOW} steps before. The best of "
        "13 exponents is chosen on the same runs: it looks better than it is."
    )
    return "\n".join([*lines, "", note, ""])


def _initial(init: dict[str, object]) -> str:
    if init["kind"] == "he_normal":
        return "N(0, 2/m), biases 0"
    return f"N(0, {init['scale']:g}²), biases too"


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.2f} [{low:.2f} … {high:.2f}]"


def _clusters(found: Prediction) -> str:
    if len(found.ensemble.clusters) == 1:
        return "one broad distribution"
    return "; ".join(
        f"{c.peak:.2f}: {100 * c.share:.1f} [{100 * c.low:.1f}–{100 * c.high:.1f}] %"
        for c in found.ensemble.clusters
    )


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    spread = finite.std(ddof=1) if finite.size > 1 else np.nan
    lost = values.size - finite.size
    return f"{finite.mean():.2g} ± {spread:.2g}" + (f" ({lost} not finite)" if lost else "")


def _auc(found: Prediction, name: str, step: int) -> str:
    auc, low, high = found.skill(name, step)
    return f"{auc:.3f} [{low:.3f}–{high:.3f}]"


def _best(found: Prediction, step: int) -> str:
    names = [name for name in found.curves if name.startswith("FTLE ")]
    skills = [abs(found.skill(name, step)[0] - 0.5) for name in names]
    if not np.isfinite(skills).any():
        return "–"
    name = names[int(np.nanargmax(skills))]
    return f"λ_{name.removeprefix('FTLE ')}: {_auc(found, name, step)}"
