"""pylyap beside JAX, PyTorch, NumPy, lyapax, chaotax and three others: the same work in one run.

    python -m benchmarks.peers                       # every row, some minutes each
    python -m benchmarks.peers --quick --rows 1,3    # a test of the code; do not quote the times
    python -m benchmarks.peers --processor-time      # of one core; for machines with other load
    python -m benchmarks.peers --json peers.json     # every repetition of every candidate

Nothing is installed: a package that cannot be imported is reported as not installed. To use two
cores of a larger machine, run it under ``taskset -c 0,1``.

How to read the tables
----------------------
All lines of a table propagate the same frame of k tangent vectors along the same runs of gradient
descent (or orbits of the Hénon map), in float64, with an orthonormalisation and a record at every
step, and have all cores that this process may use: either one process with all threads, or one
single-threaded process pinned to each core, whose throughputs are added. *us* is the wall-clock
time per step and run in microseconds, the median of repetitions in which all lines take turns, with
the minimum and maximum beside it. With ``--processor-time`` all lines have one process on one core,
and *us* is its processor time. *x pylyap* is that time divided by pylyap's. *GF/s* is one count of
operations, the same for every line whatever it computes,

    min(q N n^2 + 2 n^2 k, 4.5 N n k) + 2 n k^2,     q = rank of the loss's curvature per sample,

divided by that time (SGD and ensembles: their matrix products alone); *dgemm* is the ratio to the
rate of NumPy's float64 matrix product, measured in the same repetitions. **Ratios hold within one
run only**: never divide numbers of two runs or two machines, and check the load that is printed
first.

Each line is the fastest of its candidates, found by a first timing of all of them:

- *autodiff* is the direct formulation: `jvp` of the optimiser's step over the columns, `linearize`,
  or the full `hessian` and a product; *by hand* has the blocks of the Hessian, or the R-operator,
  written as matrix products, the same source for JAX, PyTorch and NumPy;
- *pylyap, from_jax* is the loss in JAX through `from_jax`;
- runs *singly*, one after another, or batched with `vmap`;
- the library's QR, CholeskyQR2, or a custom Gram-Schmidt, modified by columns (*MGS*) or classical
  by panels (*panel GS*); the cost of the orthonormalisation is independent of the tangents, so
  these are timed with the fastest tangents only;
- one process with all *threads*, or one *per core*.

Compilation is not timed, except that of chaotax, which compiles at each call and is left out for
more than four runs. A candidate is timed only if its exponents over the first steps, from the same
weights and frame, equal pylyap's to 1e-6; otherwise the difference is reported. For the map, where
peers choose their own initial frame, exponents are compared after the steps that align it.
"""
