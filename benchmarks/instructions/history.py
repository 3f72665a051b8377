"""The accepted tables, one line each, and their table for the documentation."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).parent / "history.jsonl"


def append(version: str, compiler: str, counts: dict[str, int], path: Path = HISTORY) -> None:
    """Add a line for the counts that have just been accepted."""
    line = {
        "date": date.today().isoformat(),
        "version": version,
        "compiler": compiler,
        "counts": counts,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path = HISTORY) -> list[dict[str, Any]]:
    """All lines, oldest first."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


def table(entries: list[dict[str, Any]], columns: int = 6) -> str:
    """Markdown: a row for each count, a column for each of the last tables.

    The first column is in millions, the others are relative to it.
    """
    entries = entries[-columns:]
    if not entries:
        return "no table has been accepted yet\n"
    heads = [f"{entry['date']} {entry['version']}" for entry in entries]
    rows = [["count", *heads], ["---", *["---:"] * len(entries)]]
    for name in sorted({name for entry in entries for name in entry["counts"]}):
        values = [entry["counts"].get(name) for entry in entries]
        first = next(value for value in values if value is not None)
        begin = values.index(first)
        texts = ["" if value is None else f"{value / first - 1:+.1%}" for value in values]
        texts[begin] = f"{first / 1e6:.3f}" if first >= 1000 else str(first)
        rows.append([name, *texts])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
