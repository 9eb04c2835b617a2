"""Several processes train as one: same log, same weights, same masks; and only one of them writes.

Run as a program, `test_distributed.py FOLDER CASES`, it is one of them, or forks two where torchrun has not done so.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from laconic import data
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.compress.masked.magnitude import Gradual
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.decode.search import Decoding
from laconic.machine.distributed import (
    barrier,
    broadcast,
    is_writer,
    parallel,
    process_group,
    rank,
    total,
    unwrapped,
    world,
    writer_first,
)
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary
from laconic.training.batches import make_batches
from laconic.training.checkpoint import load_checkpoint
from laconic.training.evaluation import Validator
from laconic.training.features import PixelCache
from laconic.training.loop import Run
from laconic.training.scst import Scst, SelfCritical
from laconic.training.settings import Training

SETTINGS = Training(
    epochs=2,
    batch=6,
    learning_rate=2e-3,
    encoder_learning_rate=2e-3,
    warmup=2,
    precision="float32",
    mirror=False,
    checkpoint_minutes=0.0,
)
SCENES = 27  # 4 steps an epoch; 6 images give each of two processes 3, each of four 2 or 1
CASES = ("dense", "supermask", "gradual", "scst", "unread")


def make_run(case: str, folder: Path) -> Run:
    """A small captioner on scenes. Its sparsest masks settle after the first epoch, its encoder learns."""
    torch.manual_seed(1)
    scenes = data.load("scenes", None, "train", count=SCENES)
    captions = [scenes[i].captions for i in range(len(scenes))]
    vocabulary = Vocabulary.build((c for some in captions for c in some), 1)
    options = {"word": 12, "hidden": 16, "dropout": 0.0, "attention_dropout": 0.0}
    config = ModelConfig(EncoderConfig("convnet", size=32, stride=16), DecoderConfig(options=options))
    if case == "unread":  # nothing reads the encoder's layers behind the grid
        options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8, "input_dropout": 0.0, "dropout": 0.0}
        encoder = EncoderConfig("mobilenet_v1_025", size=32, stride=16)
        config = ModelConfig(encoder, DecoderConfig("object_relation", options))
    model = ImageCaptioner(config, vocabulary)
    for name, parameter in model.named_parameters():
        if name.endswith("attention.key.bias"):  # a softmax takes no notice of it: its gradient is rounding alone,
            parameter.requires_grad_(False)  # of which Adam makes steps as large as any
    source = PixelCache.read(scenes, 32)
    batches = make_batches(source, captions, vocabulary, max_length=16, size=SETTINGS.batch, seed=1)
    steps = SETTINGS.epochs * len(batches)
    pruner = objective = None
    if case == "supermask":
        pruner = Pruner(model, Supermask(0.7, settle=0.5), steps=steps)
    elif case == "gradual":
        pruner = Pruner(model, Gradual(0.7), steps=steps)
    elif case == "scst":  # hypotheses of a beam search are the same however the batch is shared
        objective = SelfCritical(Scst(samples=3, sampling="beam", max_length=10), captions, vocabulary)
    validate = Validator.of(source, scenes, Decoding(1))
    return Run(model, batches, SETTINGS, folder, objective=objective, pruner=pruner, validate=validate)


class Stopped(Exception):  # noqa: N818
    """A stop inside the test's own process."""


def stopped_and_resumed(run: Run) -> Run:
    """Another run that goes on where this one stops: in the second half, where masks stand still."""
    objective = run.objective

    def stopping(model, batch):
        if run.step == 6:
            raise Stopped
        return objective(model, batch)

    run.objective = stopping
    with contextlib.suppress(Stopped):
        run.fit()
    barrier()  # the writer may be at its last checkpoint
    second = make_run("supermask", run.folder)
    second.resume()
    assert second.step == 6
    return second


def fork(folder: Path, cases: list[str]) -> None:
    """Two children with torchrun's variables: what three programs would import each is imported once."""
    torch.optim.Adam([torch.ones(1, requires_grad=True)])  # imports much
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    os.environ.update(address, WORLD_SIZE="2")
    children = []
    for number in ("0", "1"):
        os.environ.update(RANK=number, LOCAL_RANK=number)
        child = os.fork()
        if not child:
            main(folder, cases)
            return
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit(1)


def main(folder: Path, cases: list[str]) -> None:
    """Trains each case; each process tells what it ended with."""
    with process_group():
        assert (broadcast(rank()), total([1.0, rank()], torch.device("cpu"))) == (0, [2.0, 1.0])
        for case in cases:
            run = make_run(case, folder / case)
            if case == "supermask":
                run = stopped_and_resumed(run)
            scores = run.fit()
            torch.save({"model": run.model.state_dict(), "scores": scores}, folder / f"{case}{rank()}.pt")
        with writer_first():
            found = (folder / "first").exists()
            (folder / "first").touch()
        assert found != is_writer()
        barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes have left behind."""
    folder = tmp_path_factory.mktemp("two")
    launch([sys.executable], folder, CASES)
    return folder


def launch(python: list[str], folder: Path, cases: Sequence[str]) -> None:
    done = subprocess.run([*python, __file__, str(folder), *cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow  # torchrun and its two programs import torch each; by default they are forked
def test_torchrun_starts_the_same_processes(folder, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch(torchrun, tmp_path, ["dense"])
    found, forked = (torch.load(some / "dense0.pt", weights_only=True)["model"] for some in (tmp_path, folder))
    assert all(torch.equal(found[name], value) for name, value in forked.items())


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(case, folder, tmp_path):
    alone = make_run(case, tmp_path)
    scores = alone.fit()
    first, second = (torch.load(folder / f"{case}{r}.pt", weights_only=True) for r in (0, 1))
    assert first["scores"] == second["scores"]
    assert first["scores"] == pytest.approx(scores, rel=1e-3, abs=1e-6)
    for name, value in alone.model.state_dict().items():
        assert torch.equal(first["model"][name], second["model"][name]), name
        scale = max(1.0, value.double().abs().max().item())  # gates of so short a run reach thousands
        torch.testing.assert_close(first["model"][name], value, rtol=1e-3, atol=2e-5 * scale, msg=name)
    logs = [(path / "log.jsonl").read_text().splitlines() for path in (folder / case, tmp_path)]
    for together, apart in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert together.keys() == apart.keys()
        assert together["step"] == apart["step"]
        # terms of either sign and of order one all but cancel in the loss of SCST: what is left may be rounding alone
        assert together.get("loss", 0) == pytest.approx(apart.get("loss", 0), rel=1e-4, abs=1e-6)
    assert load_checkpoint(folder / case / "last.pt")["step"] == alone.steps


def test_masks_moved_and_agree(folder):
    """The case with masks is no test where they have not moved."""
    model = torch.load(folder / "supermask0.pt", weights_only=True)["model"]
    kept = torch.cat([(value > 0).flatten() for name, value in model.items() if name.endswith("gates")])
    assert 1 - kept.double().mean().item() == pytest.approx(0.7, abs=1e-3)


def test_alone_everything_is_the_obvious():
    with process_group(), writer_first():
        barrier()
        assert (rank(), world(), is_writer()) == (0, 1, True)
        assert broadcast({"CIDEr": 1.0}) == {"CIDEr": 1.0}
        assert total([1.5, 2], torch.device("cpu")) == [1.5, 2]
    model = torch.nn.Linear(2, 2)
    assert parallel(model) is model
    assert unwrapped(model) is model


if __name__ == "__main__":
    start = main if "RANK" in os.environ else fork
    start(Path(sys.argv[1]), sys.argv[2:])
