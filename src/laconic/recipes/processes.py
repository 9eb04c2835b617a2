"""Runs of a study, each in a process of its own, so many at a time, each as soon as the runs it needs are finished.

A process that dies, out of memory or by a signal, is one failed run; the others go on. Knows nothing of study files
or of how runs are shown.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any, Literal

from laconic.errors import LaconicError
from laconic.machine.process import settle_in
from laconic.recipes.folders import AnyRecipe, finished
from laconic.recipes.kinds import carry_out_recipe
from laconic.recipes.run import Watcher
from laconic.recipes.study import StudyRun
from laconic.spec.manifest import MODEL, NET
from laconic.tasks.settings import SlimRecipe
from laconic.training.given import Progress

TELL_EVERY = 0.5  # seconds between two reports of a run


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: "found" finished before; "not started" because a run it needs has failed.
        result: `result.json` of a finished run.
        reason: why it failed or was not started, one line.
        seconds: of this sitting.
    """

    name: str
    status: Literal["found", "finished", "failed", "not started"]
    result: dict[str, Any] | None = None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class StudyWatcher:
    """How a study is shown: `stage` of a run under way (run, stage, done, of), `progress` of its training, and `ended`,
    once for each run."""

    stage: Callable[[str, str, int, int], None] = lambda *_: None
    progress: Callable[[str, Progress], None] = lambda *_: None
    ended: Callable[[Outcome], None] = lambda _: None


@dataclass(frozen=True)
class Workshop:
    """Where and how the runs of a study are carried out.

    Attributes:
        folder: of the runs, one folder each.
        cache: of image features, shared by all.
        jobs: runs at a time.
        threads: of each; 0 leaves the number to PyTorch.
    """

    folder: Path
    cache: Path
    jobs: int = 1
    threads: int = 0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    started: float
    training: bool = False
    outcome: tuple[dict[str, Any] | None, str] | None = field(default=None)


def carry_out(runs: Sequence[StudyRun], shop: Workshop, watch: StudyWatcher | None = None) -> list[Outcome]:
    """Carries out all runs that are not finished; gives every run's outcome, in the order of their ends.

    Interrupted runs go on. The next run starts when the one before has begun to train, so that features they
    share are computed once. Where this process is interrupted, its runs stop too and can be continued.
    """
    watch = watch or StudyWatcher()
    outcomes: dict[str, Outcome] = {}
    waiting = list(runs)
    workers: dict[str, _Worker] = {}

    def end(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        watch.ended(outcome)

    try:
        while waiting or workers:
            ended = len(outcomes)
            for one in list(waiting):
                verdict = _verdict(one, outcomes, shop.folder)
                if verdict is not None:
                    waiting.remove(one)
                    end(verdict)
                elif _may_start(one, outcomes, workers, shop.jobs):
                    waiting.remove(one)
                    workers[one.name] = _start(one, shop)
            if workers:
                for name in _listen(workers, watch):
                    end(_dismiss(name, workers.pop(name)))
            elif len(outcomes) == ended:  # nobody is left who could finish what the others need
                for one in waiting:
                    lacking = ", ".join(need for need in one.needs if need not in outcomes)
                    end(Outcome(one.name, "not started", reason=f"needs {lacking}, which is not among the runs"))
                waiting.clear()
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.process.join()
    return list(outcomes.values())


def _verdict(one: StudyRun, outcomes: dict[str, Outcome], folder: Path) -> Outcome | None:
    """The outcome of a run that need not or cannot be started."""
    try:
        result = finished(folder / one.name, one.recipe)
    except LaconicError as error:
        return Outcome(one.name, "failed", reason=str(error))
    if result is not None:
        return Outcome(one.name, "found", result)
    for need in (name for name in one.needs if name in outcomes):
        if outcomes[need].result is None:
            return Outcome(one.name, "not started", reason=f"needs {need}, which has no result")
        made = folder / need / (NET if isinstance(one.recipe, SlimRecipe) else MODEL)
        if outcomes[need].status == "found" and not made.exists():
            reason = f"needs {made}, which is gone; delete that folder, and the study does {need} again"
            return Outcome(one.name, "not started", reason=reason)
    return None


def _may_start(one: StudyRun, outcomes: dict[str, Outcome], workers: dict[str, _Worker], jobs: int) -> bool:
    ready = all(need in outcomes for need in one.needs)
    return ready and len(workers) < jobs and all(worker.training for worker in workers.values())


def _start(one: StudyRun, shop: Workshop) -> _Worker:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(one.recipe, shop.folder / one.name, shop.cache, shop.threads, theirs), name=one.name
    )
    with interrupts_wait():
        process.start()
    theirs.close()
    return _Worker(process, ours, time.monotonic())


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C waits until the block is over, and in a process that is started in it until `_work` lets it in: while that
    imports its modules, it could only end in a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    ensure_running()  # the first process starts it, and it lets the signal in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(workers: dict[str, _Worker], watch: StudyWatcher) -> list[str]:
    """Waits for news of any worker; gives the names of those that have ended."""
    ended = []
    ready = set(wait([worker.pipe for worker in workers.values()]))
    for name, worker in workers.items():
        if worker.pipe not in ready:
            continue
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            ended.append(name)
            continue
        if isinstance(message, Progress):
            worker.training = True
            watch.progress(name, message)
        elif isinstance(message[0], str):
            watch.stage(name, *message)
        else:
            worker.outcome = message
    return ended


def _dismiss(name: str, worker: _Worker) -> Outcome:
    worker.process.join()
    seconds = time.monotonic() - worker.started
    died = f"its process ended with code {worker.process.exitcode}, perhaps out of memory; run the study again"
    result, reason = worker.outcome or (None, died)
    return Outcome(name, "failed" if result is None else "finished", result, reason, seconds)


# In the run's own process


def _work(recipe: AnyRecipe, folder: Path, cache: Path, threads: int, pipe: Connection) -> None:
    """Carries out one run; sends (stage, done, of) or Progress now and then, at the end (result or None, reason)."""
    told: dict[str, float] = {}

    def tell(stage: str, done: int, of: int, message: object) -> None:
        now = time.monotonic()
        if stage not in told or done == of or now - told[stage] >= TELL_EVERY:
            told[stage] = now
            pipe.send(message)  # fails, and so ends the run, where nobody listens any more

    watch = Watcher(
        stage=lambda stage, done, of: tell(stage, done, of, (stage, done, of)),
        progress=lambda at: tell("training", at.step, at.steps, at),
    )
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        settle_in(threads)
        pipe.send((carry_out_recipe(recipe, folder, cache, resume=True, watch=watch), ""))
    except LaconicError as error:
        pipe.send((None, str(error)))
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(1) from None
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}; the traceback is on standard error"))
        raise
