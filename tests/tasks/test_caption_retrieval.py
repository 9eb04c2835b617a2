"""Captioning and retrieval on generated scenes: objectives, scores, options, folders, and whole recipes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from laconic import hf
from laconic.errors import ConfigError
from laconic.recipes.slimming import run_slim
from laconic.tasks import caption, matching, retrieval
from laconic.tasks.settings import ModelRecipe, Search, Slim, SlimData, SlimRecipe, Stage, TaskOptions, Tower
from laconic.tasks.table import open_task
from laconic.training.settings import Training

TOWER = Tower(width=16, layers=1, heads=2)
MODEL = ModelRecipe(image=32, patch=16, vision=TOWER, text=TOWER, vocabulary=200)
DATA = SlimData(name="scenes", train=12, val=6)
TRAINING = Training(epochs=1, batch=4, precision="float32", captions=1, warmup=1)


def recipe(task: Any, kind: str = "", **options: Any) -> SlimRecipe:
    return SlimRecipe(task, replace(MODEL, kind=kind), DATA, training=TRAINING, options=TaskOptions(**options))


def captioning(folder: Path, **options: Any) -> caption.Captioning:
    return open_task(recipe("caption", max_length=12, **options), folder)


# Captioning


def test_an_image_encoded_once_for_all_its_captions_gives_each_caption_its_own_logits(tmp_path: Path) -> None:
    task = captioning(tmp_path)
    net = task.net.eval()
    batch = task.train.batch(task.train.rows[:2])
    together = task.outputs(net, batch)
    said, start = [], 0
    for at in range(len(batch.tokens)):
        length = int(batch.lengths[at])
        tokens = batch.tokens[at : at + 1, :length].clone()
        tokens[:, 0] = net.config.text_config.bos_token_id
        image = int(batch.image_of[at])
        said.append(net(pixel_values=batch.pixels[image : image + 1], input_ids=tokens).logits[0, :-1])
        start += length - 1
    torch.testing.assert_close(together, torch.cat(said), atol=1e-5, rtol=1e-4)


def test_words_of_the_prompt_are_not_learned(tmp_path: Path) -> None:
    plain, prompted = captioning(tmp_path), captioning(tmp_path, prompt="a picture of")
    rows = plain.train.rows[:2]
    counts = [len(task.outputs(task.net, task.train.batch(rows))) for task in (plain, prompted)]
    assert counts[0] == counts[1]
    assert prompted.train.batch(rows).lengths.sum() > plain.train.batch(rows).lengths.sum()


def test_the_loss_falls_on_a_batch_and_captions_come_without_the_prompt(tmp_path: Path) -> None:
    task = captioning(tmp_path, prompt="a picture of")
    learner = task.learner(task.net, None, 0.5, 1.0)
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-2)
    batch = task.train.batch(task.train.rows[:4])
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(learner(batch))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    found = task.captions(task.net, task.train, task.train.rows[:2])
    assert all(found)
    assert not any("picture" in each for each in found)


def test_the_baseline_without_images_is_what_one_sentence_scores(tmp_path: Path) -> None:
    task = captioning(tmp_path)
    assert 0 < task.baselines()["no image"] < 1000
    scores = task.validate(task.net)
    assert set(scores) == {"CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L"}


@pytest.mark.parametrize(
    ("options", "says"),
    [({"beam": 0}, "beam"), ({"max_length": 400}, "max_length"), ({"queue": 8}, "queue"), ({"mixup": 0.2}, "mixup")],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_task(recipe("caption", **options), tmp_path)


# Retrieval


def test_the_contrastive_loss_of_clip_is_that_of_transformers(tmp_path: Path) -> None:
    task = open_task(recipe("retrieval"), tmp_path)
    batch = task.batches(0, 0)
    net = task.net.eval()
    said = net(batch.tokens, batch.pixels, batch.mask, return_loss=True)
    torch.testing.assert_close(task.loss(task.outputs(net, batch), batch), said.loss)
    learner = task.learner(net, None, 0.5, 1.0).eval()
    torch.testing.assert_close(learner(batch), said.loss)


def test_blip_embeds_as_transformers_does(tmp_path: Path) -> None:
    task = open_task(recipe("retrieval", "blip", matching=True), tmp_path)
    batch = task.batches(0, 0)
    net = task.net.eval()
    said = net(batch.tokens, batch.pixels, use_itm_head=False, attention_mask=batch.mask).itm_score
    torch.testing.assert_close(task.outputs(net, batch) * retrieval.TEMPERATURE, said)
    seen = retrieval.see(net, batch.pixels)[0]
    matched = net(batch.tokens, batch.pixels, attention_mask=batch.mask).itm_score
    torch.testing.assert_close(matching.match_logits(net, seen, batch.tokens, batch.mask), matched)


@pytest.mark.parametrize(("kind", "options"), [("clip", {"queue": 8}), ("blip", {"matching": True, "queue": 8})])
def test_every_weight_learns_and_the_loss_falls(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    task = open_task(recipe("retrieval", kind, **options), tmp_path)
    learner = task.learner(task.net, None, 0.5, 1.0).train()
    learns = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learns, 3e-3)
    batch = task.batches(0, 0)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(learner(batch))
        losses[-1].backward()
        assert all(parameter.grad is not None for parameter in learns)
        optimizer.step()
    full = losses[2:]  # the queue is full: before, there were fewer to tell from
    assert torch.stack(full[-5:]).mean() < full[0]


def test_hard_negatives_are_wrong_and_mostly_close() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[9.0, 8.0, -8.0]]).repeat(200, 1)
    right = torch.tensor([[True, False, False]]).repeat(200, 1)
    drawn = matching.hard_negatives(logits, right)
    assert 0 not in drawn
    assert (drawn == 1).float().mean() > 0.95


def test_reranking_everything_adds_the_matching_logit_to_each_similarity(tmp_path: Path) -> None:
    task = open_task(recipe("retrieval", "blip", matching=True), tmp_path)
    net = task.net.eval()
    batch = task.val.batch(task.val.rows, np.random.default_rng(0), captions=1)
    seen = retrieval.see(net, batch.pixels)[0]
    similarity = np.random.default_rng(0).random((len(seen), len(seen)))
    texts, images = matching.reranked(net, seen, batch.tokens, batch.mask, similarity, len(seen))
    with torch.no_grad():
        added = matching.match_logits(net, seen[[1]], batch.tokens[[2]], batch.mask[[2]])[0, 1]
    assert texts[1, 2] == pytest.approx(similarity[1, 2] + float(added), abs=1e-5)
    np.testing.assert_allclose(texts, images, atol=1e-5)
    few, _ = matching.reranked(net, seen, batch.tokens, batch.mask, similarity, 2)
    assert ((few > matching.NEVER).sum(1) == 2).all()


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("clip", {"matching": True}, "for BLIP"),
        ("blip", {}, "untrained"),
        ("vit", {}, "model.kind"),
        ("clip", {"prompt": "x"}, "prompt"),
        ("blip", {"matching": True, "rerank": 5}, "rerank"),
    ],
)
def test_what_a_model_cannot_do_is_refused(tmp_path: Path, kind: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_task(recipe("retrieval", kind, **options), tmp_path)


# Folders and whole recipes


@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_a_saved_folder_opens_with_the_same_scores_and_no_other_task_takes_it(tmp_path: Path, task: str) -> None:
    first = open_task(recipe(task), tmp_path)
    first.save(first.net, tmp_path / "model")
    again = recipe(task)
    again = replace(again, model=replace(again.model, initial=str(tmp_path / "model")))
    second = open_task(again, tmp_path)
    with torch.no_grad():
        assert second.validate(second.net.eval()) == first.validate(first.net.eval())
    with pytest.raises(ConfigError, match="holds a"):
        open_task(replace(again, task="retrieval" if task == "caption" else "caption"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "kind", "options"),
    [
        ("caption", "blip", {"max_length": 12}),
        ("retrieval", "clip", {"queue": 8}),
        ("retrieval", "blip", {"matching": True, "rerank": 10}),
    ],
)
def test_a_whole_recipe_leaves_a_slim_folder_that_does_what_was_scored(
    tmp_path: Path, task: str, kind: str, options: dict[str, Any]
) -> None:
    whole = replace(recipe(task, kind, **options), dense=Stage(1), slim=Slim("upop", 0.5), search=Search(1))
    result = run_slim(whole, tmp_path / "run", tmp_path / "cache")
    assert result["parameters"]["now"] < result["parameters"]["dense"]
    slim = hf.from_pretrained(tmp_path / "run" / "model")
    with torch.no_grad():
        assert open_task(whole, tmp_path / "cache").validate(slim) == pytest.approx(result["scores"])
