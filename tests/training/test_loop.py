"""The training loop: resume after any stop, choice of the best checkpoint, learning rates, failures.

Run as a program, `python test_loop.py FOLDER THREADS`, its children train, and each kills itself.
"""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.errors import ConfigError, FormatError, TrainingError
from laconic.models.layers import Features
from laconic.models.object_relation import ObjectRelation
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import ObjectRelationConfig, SoftAttentionConfig
from laconic.training import loop as train
from laconic.training.batches import Batches
from laconic.training.checkpoint import load_checkpoint
from laconic.training.loop import Run, cross_entropy, make_optimizer
from laconic.training.settings import Training, cosine

IMAGES, VOCABULARY = 24, 30
SETTINGS = Training(epochs=5, batch=4, learning_rate=1e-2, warmup=3, precision="float32", seed=3)
PER_EPOCH = IMAGES // SETTINGS.batch
STEPS = SETTINGS.epochs * PER_EPOCH


class Random:
    """Random features of two views: a 10x3 grid and 4 pooled numbers per image."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.grid = rng.normal(size=(2, IMAGES, 10, 3)).astype(np.float32)
        self.pooled = rng.normal(size=(2, IMAGES, 4)).astype(np.float32)
        self.valid, self.skipped = np.ones(IMAGES, bool), ()

    def batch(self, rows, mirrored=None):
        view = np.zeros(len(rows), int) if mirrored is None else mirrored.astype(int)
        return Features(torch.from_numpy(self.grid[view, rows]), torch.from_numpy(self.pooled[view, rows]))


def make_batches() -> Batches:
    rng = np.random.default_rng(1)
    tokens = np.zeros((IMAGES, 2, 8), np.int32)
    for caption in tokens.reshape(-1, 8):
        length = rng.integers(1, 6)
        caption[: length + 2] = [2, *rng.integers(4, VOCABULARY, length), 3]
    return Batches(Random(), tokens, np.arange(IMAGES), SETTINGS.batch, SETTINGS.seed, mirror=True)


def validate(model: nn.Module) -> dict[str, float]:
    """Stands for CIDEr: how likely a fixed batch is."""
    batch = make_batches()(99, 0)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        loss = cross_entropy(model(batch.inputs, batch.tokens), batch.tokens)
    model.train(was_training)
    return {"CIDEr": -loss.item()}


def make_run(folder: Path, method: str, **options) -> Run:
    settings = options.pop("settings", SETTINGS)
    torch.manual_seed(settings.seed)
    config = SoftAttentionConfig(VOCABULARY, 3, 4, word=6, hidden=8, dropout=0.3)
    model = SoftAttention(config)
    pruner = None if method == "dense" else Pruner(model, Supermask(0.6), steps=STEPS)
    if method == "averaged":
        settings = replace(settings, average=0.8)
    return Run(model, make_batches(), settings, folder, pruner=pruner, **{"validate": validate, **options})


class Stopped(Exception):  # noqa: N818
    """A stop inside the test's own process."""


def log_of(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in run.log.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def equal(a: object, b: object) -> bool:
    """Bit for bit, through nested dicts and lists."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


@pytest.fixture(scope="module", params=["dense", "pruned", "averaged"])
def unbroken(request, tmp_path_factory):
    """Method, and a run that nothing has stopped."""
    run = make_run(tmp_path_factory.mktemp("unbroken"), request.param)
    run.fit()
    return request.param, run


def assert_same(run: Run, expected: Run) -> None:
    assert run.step == expected.step == STEPS
    assert run.best == expected.best
    assert [path.name for path in run.folder.glob("best-*.pt")] == [expected.best_path.name]
    for name in ("last.pt", expected.best_path.name):
        found, wanted = (load_checkpoint(folder / name) for folder in (run.folder, expected.folder))
        assert equal(found, wanted), name
    assert equal(run.model.state_dict(), expected.model.state_dict())
    assert log_of(run) == log_of(expected)


# Resume


KILLS = {  # a step, or the writing of its checkpoint
    "dense": (f"step@{2 * PER_EPOCH + 3}",),
    "pruned": (f"step@{PER_EPOCH - 2}", f"step@{2 * PER_EPOCH + 3}", f"write@{4 * PER_EPOCH}"),
    "averaged": (f"step@{3 * PER_EPOCH + 3}",),
}


def main(folder: str, threads: str) -> None:
    """For each kill of KILLS a child trains, from where the one before has come, until there."""
    torch.set_num_threads(int(threads))
    make_run(Path(folder) / "unused", "dense")  # an optimizer: what it imports, no child has to
    for method, places in KILLS.items():
        for place in places:
            child = os.fork()
            if not child:
                train_until(Path(folder) / method, method, place)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status)
            assert os.WTERMSIG(status) == signal.SIGKILL


def train_until(folder: Path, method: str, place: str) -> None:
    """Trains, resumes where it can, and is killed at `place`."""
    kind, step = place.split("@")
    run = make_run(folder, method)
    run.resume()
    if kind == "write":
        original = torch.save

        def save(state: dict[str, object], file: object) -> None:
            original(state, file)
            if state.get("step") == int(step):
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = save
    else:
        ordinary = run._train_step

        def train_step(epoch: int, position: int) -> float:
            loss = ordinary(epoch, position)
            if run.step + 1 == int(step):
                os.kill(os.getpid(), signal.SIGKILL)
            return loss

        run._train_step = train_step
    run.fit()
    os._exit(1)  # not killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Folder of what each method's killed runs have left behind; one program, since it costs an import of torch."""
    folder = tmp_path_factory.mktemp("killed")
    threads = str(torch.get_num_threads())  # sums are rounded in another order with more
    subprocess.run([sys.executable, __file__, str(folder), threads], check=True)
    return folder


def test_a_run_killed_again_and_again_ends_like_an_unbroken_one(unbroken, killed):
    """SIGKILL in the first epoch, in a later one, and while the checkpoint of an epoch is being written."""
    method, expected = unbroken
    reached = load_checkpoint(killed / method / "last.pt")["step"]
    assert reached == {"dense": 2, "pruned": 3, "averaged": 3}[method] * PER_EPOCH
    run = make_run(killed / method, method)
    run.resume()
    assert run.step == reached
    run.fit()
    assert_same(run, expected)


@pytest.mark.parametrize("step", [1, PER_EPOCH, PER_EPOCH + 1, 21, STEPS - 1])
@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_stopped_after_any_step_with_checkpoints_at_every_step_or_epoch(unbroken, step, minutes, tmp_path):
    method, expected = unbroken
    settings = Training(**{**SETTINGS.__dict__, "checkpoint_minutes": minutes})
    run = make_run(tmp_path, method, settings=settings)
    ordinary = run.batches

    class Stopping:
        def __len__(self) -> int:
            return len(ordinary)

        def __call__(self, epoch: int, position: int):
            if epoch * PER_EPOCH + position == step:
                raise Stopped
            return ordinary(epoch, position)

    run.batches = Stopping()
    with pytest.raises(Stopped):
        run.fit()
    torch.manual_seed(1234)
    run = make_run(tmp_path, method, settings=settings)
    run.resume()
    assert run.step == (step if minutes == 0 else step - step % PER_EPOCH)
    run.fit()
    assert_same(run, expected)


def test_a_finished_run_resumes_to_its_end(unbroken):
    method, expected = unbroken
    before = log_of(expected)
    run = make_run(expected.folder, method)
    run.resume()
    assert run.fit() == expected.best
    assert_same(run, expected)
    assert log_of(run) == before


def test_lines_cut_short_by_a_kill_leave_the_log(tmp_path):
    run = make_run(tmp_path, "dense")
    run.log.parent.mkdir(exist_ok=True)
    run.step = 6
    run.save()
    run.log.write_text('{"step": 5}\n{"step": 6}\n{"step": 7}\n{"step": 8, "lo')
    run.resume()
    assert run.log.read_text() == '{"step": 5}\n{"step": 6}\n'


@pytest.mark.parametrize("line", ["7", "null", "[]", "{}", '{"step": "x"}', '{"step": 3', "\\udc80"])
def test_a_line_that_is_none_of_a_log_is_named(line, tmp_path):
    run = make_run(tmp_path, "dense")
    run.log.write_text(f'{{"step": 0}}\n{line}\n{{"step": 1}}\n')
    with pytest.raises(TrainingError, match=r"log\.jsonl: line 2 is none of a training log .*delete that line"):
        run.resume()
    assert line in run.log.read_text()


# Checkpoints that cannot be used


def test_a_best_checkpoint_that_is_gone_is_missed(unbroken, tmp_path):
    method, expected = unbroken
    shutil.copytree(expected.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / expected.best_path.name).unlink()
    with pytest.raises(TrainingError, match=r"best-\d+\.pt: is gone, and last\.pt goes on from it"):
        make_run(tmp_path, method).resume()


def test_other_words_or_data_are_noticed_and_older_checkpoints_go_on(tmp_path):
    origin = {"vocabulary": "abc", "set of training captions": "def"}
    make_run(tmp_path, "dense", origin=origin).save()
    make_run(tmp_path, "dense", origin=origin).resume()
    with pytest.raises(TrainingError, match=r"last\.pt: was written with another set of training captions"):
        make_run(tmp_path, "dense", origin={**origin, "set of training captions": "xyz"}).resume()
    make_run(tmp_path, "dense").save()  # as version 0.1, which kept no digests
    make_run(tmp_path, "dense", origin=origin).resume()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("step", value) for value in ("x", 1.5, -1, STEPS + 1, True, None)),
        *(("seconds", value) for value in ("x", -1.0, math.inf)),
        *((key, value) for key in ("best", "scores") for value in (3, None, {"CIDEr": "x"}, {1: 2.0})),
        ("best", {"CIDEr": 0.5}),
        *(("model", value) for value in (3, None, [], {"a": 3})),
        *(("optimizer", value) for value in (3, None, {}, {"state": 3, "param_groups": []})),
        ("origin", 3),
    ],
)
def test_a_checkpoint_with_entries_of_other_types_is_named(key, value, tmp_path):
    run = make_run(tmp_path, "dense", origin={"vocabulary": "abc"})
    run.save()
    train.save_checkpoint({**load_checkpoint(run.last), key: value}, run.last)
    with pytest.raises(TrainingError, match=r"last\.pt: .*damaged.*give --out another folder"):
        make_run(tmp_path, "dense", origin={"vocabulary": "abc"}).resume()


def test_moments_of_another_shape_are_refused(tmp_path):
    run = make_run(tmp_path, "dense", settings=Training(**{**SETTINGS.__dict__, "epochs": 1}), validate=None)
    run.fit()
    state = load_checkpoint(run.last)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1).expand(10**12)  # claims much, holds nothing
    train.save_checkpoint(state, run.last)
    with pytest.raises(TrainingError, match=r"last\.pt: checkpoint of another model .*exp_avg of a weight of shape"):
        run.resume()


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_an_unreadable_checkpoint_stays_where_it_is(data, tmp_path):
    run = make_run(tmp_path, "dense")
    run.last.write_bytes(data)
    with pytest.raises(FormatError, match=r"last\.pt"):
        run.resume()
    assert run.last.read_bytes() == data


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    make_run(tmp_path, "dense").save()
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"last\.pt: checkpoint of another model"):
        make_run(tmp_path, "pruned").resume()
    assert (tmp_path / "last.pt").read_bytes() == kept
    run = make_run(tmp_path, "dense")
    for state in ({}, {"model": 3}, {"model": run.model.state_dict(), "optimizer": {}}):
        train.save_checkpoint(state, run.last)
        with pytest.raises(TrainingError, match="checkpoint of another model"):
            run.resume()


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(unbroken, tmp_path, monkeypatch):
    method, expected = unbroken
    replace, calls = os.replace, []

    def full(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as broken:
        broken.setattr("os.replace", full)
        with pytest.raises(TrainingError, match="No space left"):
            make_run(tmp_path, method).fit()
    run = make_run(tmp_path, method)
    run.resume()
    assert 0 < run.step < STEPS
    run.fit()
    assert_same(run, expected)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_that_cannot_be_written(tmp_path):
    run = make_run(tmp_path, "dense")
    run.log.symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be written"):
        run.fit()


# What the loop does


def test_log_tells_loss_rate_and_sparsity(unbroken):
    method, run = unbroken
    rows = log_of(run)
    assert [row["step"] for row in rows if "loss" in row] == [20, STEPS]
    assert [row["epoch"] for row in rows if "epoch" in row] == [1, 2, 3, 4, 5]
    last = [row for row in rows if "loss" in row][-1]
    assert last["lr"] == pytest.approx(SETTINGS.learning_rate * cosine(STEPS - 1, STEPS, 3))
    if method == "pruned":
        assert last["sparsity"] == pytest.approx(0.6, abs=0.15)
        assert {"gate_mean", "penalty"} <= last.keys()


def test_training_lowers_the_loss(unbroken):
    _, run = unbroken
    scores = [row["CIDEr"] for row in log_of(run) if "epoch" in row]
    assert max(scores[1:]) > scores[0]
    assert run.best["CIDEr"] == max(scores) or run.pruner is not None


def test_best_is_the_best_epoch_that_meets_the_sparsity(tmp_path):
    """Scores fall from epoch to epoch, but only the later epochs are sparse enough."""
    seen: list[tuple[bool, float]] = []

    def falling(model: nn.Module) -> dict[str, float]:
        pruner = run.pruner
        kept = sum(int(mask.sum()) for mask in pruner.masks().values())
        seen.append((pruner.near_target, kept))
        return {"CIDEr": 10.0 - len(seen)}

    run = make_run(tmp_path, "pruned", validate=falling)
    best = run.fit()
    eligible = [near for near, _ in seen]
    assert eligible[0] is False
    first = eligible.index(True)
    assert best == {"CIDEr": 9.0 - first, "step": (first + 1) * PER_EPOCH}
    # what was scored is exactly what would be shipped
    weights = run.pruner.weights
    assert {kept for near, kept in seen if near} == {weights - int(0.6 * weights)}
    assert run.pruner.sparsity == int(0.6 * weights) / weights


def test_a_stop_between_the_two_checkpoints_loses_neither(tmp_path, monkeypatch):
    """The new best one is written, `last.pt` is not, and the epoch done again has another score, as on a GPU."""
    scores = iter([1.0, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5])

    def scored(model: nn.Module) -> dict[str, float]:
        return {"CIDEr": next(scores)}

    run = make_run(tmp_path, "dense", validate=scored)
    with monkeypatch.context() as stops:
        ordinary = train.save_checkpoint

        def save(state, path):
            if path.name == "last.pt" and state["step"] == 2 * PER_EPOCH:
                raise Stopped
            ordinary(state, path)

        stops.setattr(train, "save_checkpoint", save)
        with pytest.raises(Stopped):
            run.fit()
    assert len(list(tmp_path.glob("best-*.pt"))) == 2
    run = make_run(tmp_path, "dense", validate=scored)
    run.resume()
    assert run.fit() == {"CIDEr": 1.0, "step": PER_EPOCH}
    assert [path.name for path in tmp_path.glob("best-*.pt")] == [f"best-{PER_EPOCH}.pt"]
    assert equal(run.model.state_dict(), load_checkpoint(run.best_path)["model"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs = 0; give at least 1"),
        ({"batch": 0}, "batch = 0; give at least 1"),
        ({"seed": -1}, "seed = -1; give at least 0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": 0.0}, "trains nothing"),
        ({"label_smoothing": 2.0}, "label_smoothing = 2.0"),
        ({"clip": 0.0}, "clip = 0.0"),
        ({"average": 1.0}, "average = 1.0; give 0 <= average < 1"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes = -1.0"),
        ({"weight_decay": 1e30}, "weight_decay = 1e.30 takes learning_rate x weight_decay = 1e.27 of the weights"),
        ({"weight_decay": 2.0, "encoder_learning_rate": 0.5}, "takes encoder_learning_rate x weight_decay = 1 of"),
    ],
)
def test_settings_that_are_not_possible(options, message):
    with pytest.raises(ConfigError, match=message):
        Training(**options)


def test_without_an_eligible_epoch_the_last_weights_stay(tmp_path):
    run = make_run(tmp_path, "pruned", settings=Training(**{**SETTINGS.__dict__, "epochs": 1}))
    scores = run.fit()
    assert not run.best_path.exists()
    assert run.best == {}
    assert scores.keys() == {"CIDEr"}
    assert equal(run.model.state_dict(), load_checkpoint(run.last)["model"])


def test_averages_are_scored_shipped_and_left_in_the_model_and_the_latest_weights_go_on(tmp_path):
    """Beside a run without averages: the same steps, and another model at the end."""
    plain = make_run(tmp_path / "plain", "dense")
    plain.fit()
    run = make_run(tmp_path / "averaged", "dense", settings=replace(SETTINGS, average=0.8))
    means = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    ordinary = run._train_step

    def train_step(epoch: int, position: int):
        result = ordinary(epoch, position)
        for name, weight in run.model.named_parameters():
            decay = min(0.8, (run.step + 1) / (run.step + 11))
            means[name].lerp_(weight.detach(), 1 - decay)
        return result

    run._train_step = train_step
    run.fit()
    latest = load_checkpoint(run.last)["model"]
    assert equal(latest, load_checkpoint(plain.last)["model"])
    assert run.best["step"] == STEPS  # else what follows would be about an earlier epoch
    for name, weight in run.model.named_parameters():
        torch.testing.assert_close(weight.detach(), means[name])
        assert not torch.equal(weight, latest[name])
    assert run.scores["CIDEr"] == validate(run.model)["CIDEr"] != plain.scores["CIDEr"]


def test_without_scores_the_averages_are_left_in_the_model(tmp_path):
    run = make_run(tmp_path, "dense", validate=None, settings=replace(SETTINGS, average=0.8))
    run.fit()
    state = load_checkpoint(run.last)
    for (name, weight), mean in zip(run.model.named_parameters(), state["averaged"]["means"], strict=True):
        assert torch.equal(weight, mean)
        assert not torch.equal(weight, state["model"][name])


def test_averages_of_another_model_are_refused(tmp_path):
    settings = replace(SETTINGS, epochs=1, average=0.8)
    make_run(tmp_path, "dense", settings=settings).fit()
    path = tmp_path / "last.pt"
    state = load_checkpoint(path)
    state["averaged"]["means"][0] = torch.zeros(2, 2)
    torch.save(state, path)
    with pytest.raises(TrainingError, match=r"an average of shape \(2, 2\) for a weight of shape"):
        make_run(tmp_path, "dense", settings=settings).resume()


def test_a_run_without_validation_needs_no_scores(tmp_path):
    run = make_run(tmp_path, "dense", validate=None)
    assert run.fit() == {}
    assert run.last.exists()


def test_a_diverging_loss_is_an_error_that_names_the_way_back(tmp_path):
    settings = Training(**{**SETTINGS.__dict__, "learning_rate": 1e30, "clip": 1e30})
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step .*training\.learning_rate"):
        make_run(tmp_path, "dense", settings=settings).fit()


def test_a_loss_that_was_never_finite_is_no_matter_of_the_learning_rate(tmp_path):
    run = make_run(tmp_path, "dense")
    run.model.output.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"loss is nan at step 0: nothing has been learned yet"):
        run.fit()
    settings = Training(**{**SETTINGS.__dict__, "learning_rate": 1e3, "weight_decay": 9e-4, "clip": 1e30})
    run = make_run(tmp_path, "dense", settings=settings)
    run.step = 1
    assert "lower training.learning_rate or training.weight_decay" in run._remedy()


def test_bf16_runs_and_weights_stay_float32(tmp_path):
    settings = Training(**{**SETTINGS.__dict__, "epochs": 1, "precision": "bf16"})
    run = make_run(tmp_path, "pruned", settings=settings)
    run.fit()
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


def test_progress_is_shown(tmp_path, monkeypatch):
    shown: list[train.Progress] = []
    monkeypatch.setattr(train, "SHOW_EVERY", math.inf)  # however slow the machine is
    make_run(tmp_path, "pruned", show=shown.append).fit()
    assert [(p.step, p.steps, p.epoch) for p in shown[-2:]] == [(20, STEPS, 4), (STEPS, STEPS, 5)]
    assert {"lr", "sparsity", "CIDEr"} <= shown[-2].facts.keys()


def test_slow_steps_are_shown_as_they_come_and_logged_as_ever(tmp_path, monkeypatch):
    shown: list[train.Progress] = []
    monkeypatch.setattr(train, "SHOW_EVERY", 0.0)
    make_run(tmp_path, "pruned", show=shown.append).fit()
    assert [p.step for p in shown] == list(range(1, STEPS + 1))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [20, STEPS]


def test_where_nobody_looks_the_state_of_the_masks_is_told_to_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHOW_EVERY", 0.0)
    run = make_run(tmp_path, "pruned")
    told: list[int] = []
    statistics = run.pruner.statistics

    def counted():
        told.append(run.step)
        return statistics()

    monkeypatch.setattr(run.pruner, "statistics", counted)
    run.fit()
    assert told == [20, STEPS]


def test_learning_rate_warms_up_and_falls_to_zero():
    assert [cosine(step, 1000, 4) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75], rel=1e-4)
    assert cosine(500, 1000, 4) == pytest.approx(0.5)
    assert cosine(1000, 1000, 4) == 0
    assert cosine(0, 10, 0) == 1


def test_encoder_has_its_own_rate_or_is_left_out():
    class Parts(nn.ModuleDict):
        def parts(self):
            return dict(self.items())

    model = Parts({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 3)})
    both = make_optimizer(model, Training(learning_rate=0.5, encoder_learning_rate=0.25)).param_groups
    assert [(g["lr"], g["peak"], len(g["params"])) for g in both] == [(0.5, 0.5, 2), (0.25, 0.25, 2)]
    (only,) = make_optimizer(model, Training()).param_groups
    assert [p.shape for p in only["params"]] == [(3, 2), (3,)]


def test_a_captioner_with_an_encoder_of_its_own_learns_throughout():
    """Layers that relate regions are called encoder, too, and are none of images."""
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    model = ObjectRelation(ObjectRelationConfig(9, 3, 3, **options))
    (only,) = make_optimizer(model, Training()).param_groups
    assert len(only["params"]) == len(list(model.parameters()))


def test_cross_entropy_is_the_mean_over_words():
    tokens = torch.tensor([[[2, 4, 3], [2, 3, 0]]])
    logits = torch.randn(3, 5)
    expected = -logits.log_softmax(-1)[torch.arange(3), torch.tensor([4, 3, 3])].mean()
    torch.testing.assert_close(cross_entropy(logits, tokens), expected)
    assert cross_entropy(logits, tokens, 0.1) != cross_entropy(logits, tokens)


if __name__ == "__main__":
    main(*sys.argv[1:])
