"""Runs of a study in processes: order, failures, what is found finished. The runs themselves are stand-ins."""

import multiprocessing
import signal
import threading
import time
from dataclasses import replace

import pytest

from laconic.errors import DataError, TrainingError
from laconic.recipes import processes
from laconic.recipes.processes import Outcome, StudyWatcher, Workshop, _Worker, carry_out
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.study import StudyRun
from laconic.training.given import Progress

RESULT = {"scores": {"CIDEr": 0.5}}


class Pool:
    """Stands where processes are started; runs end in the order in which they began."""

    def __init__(self, monkeypatch, failing: set[str]) -> None:
        self.failing, self.started, self.most = failing, [], 0
        self.ready: dict[str, str] = {}
        monkeypatch.setattr(processes, "_start", self.start)
        monkeypatch.setattr(processes, "_listen", self.listen)
        monkeypatch.setattr(processes, "_dismiss", self.dismiss)

    def start(self, run, shop):
        self.started.append(run.name)
        return _Worker(self, None, 0.0)  # type: ignore[arg-type]

    def listen(self, workers, watch):
        self.most = max(self.most, len(workers))
        preparing = [name for name, worker in workers.items() if not worker.training]
        assert len(preparing) <= 1  # shared features are computed once
        if preparing:
            workers[preparing[0]].training = True
            return []
        return [next(iter(workers))]

    def dismiss(self, name, worker):
        if name in self.failing:
            return Outcome(name, "failed", reason="broken")
        return Outcome(name, "finished", RESULT)


def study(**needs: str) -> list[StudyRun]:
    return [StudyRun(name, Recipe(), tuple(some)) for name, some in needs.items()]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_runs_wait_for_what_they_need(monkeypatch, tmp_path, jobs):
    pool = Pool(monkeypatch, set())
    ended: list[Outcome] = []
    watch = StudyWatcher(ended=ended.append)
    outcomes = carry_out(study(a="", b="a", c="", d="bc", e=""), Workshop(tmp_path, tmp_path, jobs), watch)
    assert outcomes == ended
    assert sorted(outcome.name for outcome in ended) == list("abcde")
    assert pool.most == jobs
    assert pool.started.index("b") > pool.started.index("a")
    names = [outcome.name for outcome in ended]
    assert names.index("d") > max(names.index("b"), names.index("c"))
    if jobs == 1:
        assert pool.started == list("abcde")
    else:
        assert pool.started[1] == "c"  # b must wait, c need not


def test_a_failed_run_stops_only_what_needs_it(monkeypatch, tmp_path):
    pool = Pool(monkeypatch, {"a"})
    outcomes = {o.name: o for o in carry_out(study(a="", b="a", c="b", d=""), Workshop(tmp_path, tmp_path))}
    assert pool.started == ["a", "d"]
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "a": "failed",
        "b": "not started",
        "c": "not started",
        "d": "finished",
    }
    assert outcomes["c"].reason == "needs b, which has no result"


def test_what_is_finished_is_found_and_a_damaged_folder_is_a_failed_run(monkeypatch, tmp_path):
    pool = Pool(monkeypatch, set())
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}")

    def finished(folder, recipe):
        if not (folder / "recipe.json").exists():
            return None
        if folder.name == "b":
            raise TrainingError("damaged")
        return RESULT

    monkeypatch.setattr(processes, "finished", finished)
    outcomes = carry_out(study(a="", b="", c="a"), Workshop(tmp_path, tmp_path))
    assert [(o.name, o.status) for o in outcomes] == [("a", "found"), ("b", "failed"), ("c", "not started")]
    assert "model.safetensors, which is gone; delete that folder" in outcomes[2].reason
    (tmp_path / "a" / "model.safetensors").touch()
    outcomes = carry_out(study(a="", b="", c="a"), Workshop(tmp_path, tmp_path))
    assert [(o.name, o.status) for o in outcomes] == [("a", "found"), ("b", "failed"), ("c", "finished")]
    assert pool.started == ["c"]


def test_a_finished_run_is_found_whatever_became_of_what_it_needed(monkeypatch, tmp_path):
    pool = Pool(monkeypatch, {"a"})
    monkeypatch.setattr(processes, "finished", lambda folder, recipe: RESULT if folder.name == "b" else None)
    outcomes = carry_out(study(a="", b="a"), Workshop(tmp_path, tmp_path))
    assert {o.name: o.status for o in outcomes} == {"a": "failed", "b": "found"}
    assert pool.started == ["a"]


# In the run's own process


class Pipe(list):
    send = list.append


def test_a_run_reports_its_stages_and_its_end(monkeypatch, tmp_path):
    def run(recipe, folder, cache, resume, watch):
        assert resume
        for done in range(1, 1001):
            watch.stage("features", done, 1000)
            watch.progress(Progress(done, 1000, 1, 2.0, {}))
        return RESULT

    monkeypatch.setattr(processes, "carry_out_recipe", run)
    started = time.monotonic()
    pipe = Pipe()
    processes._work(Recipe(), tmp_path, tmp_path, 0, pipe)
    assert pipe[-1] == (RESULT, "")
    first, last = Progress(1, 1000, 1, 2.0, {}), Progress(1000, 1000, 1, 2.0, {})
    assert [*pipe[:2], *pipe[-3:-1]] == [("features", 1, 1000), first, ("features", 1000, 1000), last]
    assert len(pipe) <= 5 + 2 * ((time.monotonic() - started) / processes.TELL_EVERY + 1)


def test_errors_come_back_as_one_reason(monkeypatch, tmp_path):
    def fail(error):
        def run(*_, **__):
            raise error

        return run

    monkeypatch.setattr(processes, "carry_out_recipe", fail(DataError("no photos")))
    pipe = Pipe()
    processes._work(Recipe(), tmp_path, tmp_path, 0, pipe)
    assert pipe == [(None, "no photos")]
    monkeypatch.setattr(processes, "carry_out_recipe", fail(ZeroDivisionError("oops")))
    with pytest.raises(ZeroDivisionError):
        processes._work(Recipe(), tmp_path, tmp_path, 0, pipe)
    assert pipe[-1] == (None, "ZeroDivisionError: oops; the traceback is on standard error")
    monkeypatch.setattr(processes, "carry_out_recipe", fail(BrokenPipeError()))
    with pytest.raises(SystemExit):
        processes._work(Recipe(), tmp_path, tmp_path, 0, pipe)


def test_a_real_process_fails_with_its_reason(tmp_path):
    recipe = replace(Recipe(), data=DataRecipe("flickr8k", root=str(tmp_path / "nowhere")))
    (outcome,) = carry_out([StudyRun("a", recipe)], Workshop(tmp_path / "runs", tmp_path / "cache", threads=1))
    assert outcome.status == "failed"
    assert "dataset_flickr8k.json" in outcome.reason
    assert outcome.seconds > 0


def test_a_process_that_dies_is_a_failed_run(tmp_path, monkeypatch):
    start = processes._start

    def start_and_kill(run, shop):
        worker = start(run, shop)
        worker.process.kill()
        return worker

    monkeypatch.setattr(processes, "_start", start_and_kill)
    (outcome,) = carry_out([StudyRun("a", Recipe())], Workshop(tmp_path, tmp_path))
    assert outcome.status == "failed"
    assert "ended with code -9" in outcome.reason


def test_ctrl_c_waits_while_a_run_is_started_and_ends_it_without_a_traceback(monkeypatch, tmp_path):
    """What the process would say while it imports its modules is a traceback."""

    class Starting:
        def __init__(self, **_):
            self.blocked: set[int] = set()

        def start(self):
            self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())

    class Pretended:
        Process = Starting

        def Pipe(self, duplex):  # noqa: N802
            return multiprocessing.Pipe(duplex)

    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: Pretended())
    worker = processes._start(StudyRun("a", Recipe()), Workshop(tmp_path, tmp_path))
    assert signal.SIGINT in worker.process.blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    monkeypatch.setattr(processes, "settle_in", lambda _: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # to this thread: any other would let it in
    with pytest.raises(SystemExit):
        processes._work(Recipe(), tmp_path, tmp_path, 0, Pipe())


def test_a_run_whose_need_is_not_among_them_is_not_started(monkeypatch, tmp_path):
    Pool(monkeypatch, set())
    (outcome,) = carry_out([StudyRun("b", Recipe(), ("a",))], Workshop(tmp_path, tmp_path))
    assert (outcome.status, outcome.reason) == ("not started", "needs a, which is not among the runs")
