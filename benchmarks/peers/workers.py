"""Worker processes that build the formulations and time them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import henon_runs, jax_runs, landscape_runs, model_runs, numpy_runs, pylyap_runs, torch_runs
from .workloads import Run

TIMEOUT = 300.0  # seconds for one answer of a worker, compilation included
MIN_DURATION = 0.3  # seconds of a repetition, at least
PAUSE = 0.1  # seconds before a repetition: threads of the previous candidate may still spin

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

BUILDERS: dict[str, Callable[..., Run]] = {
    function.__name__: function
    for function in (
        pylyap_runs.pylyap_training,
        pylyap_runs.pylyap_ensemble,
        pylyap_runs.pylyap_sgd,
        pylyap_runs.pylyap_propagator,
        pylyap_runs.pylyap_sharpness,
        numpy_runs.dgemm,
        numpy_runs.numpy_training,
        numpy_runs.numpy_ensemble,
        jax_runs.jax_training,
        jax_runs.bridge_training,
        jax_runs.lyapax_training,
        jax_runs.chaotax_training,
        jax_runs.jax_ensemble,
        jax_runs.jax_sgd,
        jax_runs.jax_propagator,
        jax_runs.jax_sharpness,
        torch_runs.torch_training,
        torch_runs.torch_ensemble,
        torch_runs.torch_sgd,
        landscape_runs.pylyap_landscape,
        landscape_runs.jax_landscape,
        model_runs.pylyap_model,
        model_runs.torch_model,
        henon_runs.pylyap_henon_spectrum,
        henon_runs.pylyap_henon_vectors,
        henon_runs.lyapynov_henon_spectrum,
        henon_runs.lyapynov_henon_vectors,
        henon_runs.clvlib_henon_vectors,
        henon_runs.pynamicalsys_henon_spectrum,
        henon_runs.pynamicalsys_henon_vectors,
    )
}


def seconds_per_call(run: Run, clock: Callable[[], float]) -> float:
    """The mean time of a call, over as many calls as fill `MIN_DURATION`."""
    time.sleep(PAUSE)
    begin, calls, elapsed = clock(), 0, 0.0
    while elapsed < MIN_DURATION:
        run()
        calls += 1
        elapsed = clock() - begin
    return elapsed / calls


def serve(connection: Any, core: int | None, processor_time: bool) -> None:
    """Loop of a worker: build or time a formulation on request; answer growth or seconds."""
    clock = time.process_time if processor_time else time.perf_counter
    if core is not None:
        os.sched_setaffinity(0, {core})
    built: dict[int, Run] = {}
    while True:
        try:
            command, key, *arguments = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: Any = None
            if command == "build":
                name, options, work = arguments
                built[key] = BUILDERS[name](work, **options)
                answer = work.compared(np.asarray(built[key]())[:, : max(work.check[1], 1)])
            elif command == "time":
                answer = seconds_per_call(built[key], clock)
            elif command == "drop":
                built.pop(key, None)
        except Exception as error:  # any exception of a peer becomes a line of the report
            text = str(error).strip()
            answer = RuntimeError(f"{type(error).__name__}: {text.splitlines()[0] if text else ''}")
        connection.send(answer)


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment variables with these changes, restored afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class WorkerGroup:
    """Worker processes that share the runs: one with all threads, or one pinned to each core.

    With `processor_time` they measure their processor time, all threads together.
    """

    def __init__(
        self, name: str, cores: Sequence[int | None], processor_time: bool = False
    ) -> None:
        self.name = name
        self.cores = cores
        self.processor_time = processor_time
        self.generation = 0
        self.start()

    def start(self) -> None:
        """Start the processes; what earlier ones had built is lost."""
        self.generation += 1
        self.workers = []
        context = multiprocessing.get_context("spawn")
        pinned = ONE_THREAD if self.cores[0] is not None else {}
        with environment({"JAX_PLATFORMS": "cpu", **pinned}):
            for core in self.cores:
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=serve, args=(theirs, core, self.processor_time), daemon=True
                )
                process.start()
                theirs.close()
                self.workers.append((process, ours))

    def ask(self, messages: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send one message to each of the first workers at the same time; their answers."""
        workers = self.workers[: len(messages)]
        answers = []
        try:
            for (_, connection), message in zip(workers, messages, strict=True):
                connection.send(message)
            for _, connection in workers:
                if not connection.poll(TIMEOUT):
                    raise TimeoutError(f"no answer within {TIMEOUT:g} s")
                answers.append(connection.recv())
        except (OSError, EOFError) as error:  # timed out or ended: start new workers
            self.close()
            self.start()
            raise RuntimeError(str(error) or "the process died") from None
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        """End the processes."""
        for process, connection in self.workers:
            connection.close()
            process.join(1)
            if process.is_alive():
                process.kill()
