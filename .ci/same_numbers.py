"""Compare results that two builds of the kernels' driver print: equal to rounding, or exit code 1.

    python .ci/same_numbers.py FIRST SECOND

A line is the name of a workload and numbers; differences are relative to the largest of a line.
Order of sums and the library of elementary functions differ between processors and compilers: over
the few steps of a workload that is some units in the last place.
"""

import math
import sys
from pathlib import Path

DOUBLE, SINGLE = 1e-12, 1e-5  # largest seen between x86-64 and aarch64: 1.1e-14 and 3.0e-8

first, second = (
    [line.split() for line in Path(file).read_text("utf-8").splitlines()] for file in sys.argv[1:]
)
if not first or [(a[0], len(a)) for a in first] != [(b[0], len(b)) for b in second]:
    sys.exit("the files hold different workloads")
worst: dict[str, float] = {}
for (name, *a), (_, *b) in zip(first, second, strict=True):
    x, y = [float(v) for v in a], [float(v) for v in b]
    if not all(map(math.isfinite, [*x, *y])):
        sys.exit(f"{name}: not finite")
    scale = max(map(abs, x), default=0.0) or 1.0
    difference = max((abs(u - v) for u, v in zip(x, y, strict=True)), default=0.0) / scale
    worst[name] = max(worst.get(name, 0.0), difference)
different = [n for n, d in worst.items() if d > (SINGLE if n.endswith("single") else DOUBLE)]
for name, difference in worst.items():
    print(f"{name:30} {difference:8.1e}{'  DIFFERENT' if name in different else ''}")
sys.exit(1 if different else 0)
