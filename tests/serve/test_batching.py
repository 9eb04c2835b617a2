"""Which photos are captioned together."""

import asyncio

import numpy as np
import pytest

from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import TrainingError
from laconic.serve.batching import Batches
from laconic.serve.metrics import Metrics

OTHER = Decoding(beam=5)


class Engine:
    """Says of an image what its first pixel is; each call takes its time."""

    def __init__(self, seconds=0.05, fails_at=None):
        self.calls, self.seconds, self.fails_at = [], seconds, fails_at

    def search(self, images, decoding):
        import time

        time.sleep(self.seconds)
        said = images[:, 0, 0, 0].tolist()
        self.calls.append((said, decoding.beam))
        if self.fails_at in said:
            raise TrainingError("damaged")
        return [[Hypothesis((number,), -1.0, (-1.0,), True)] for number in said]


def pixels(number):
    return np.full((2, 2, 3), number, np.uint8)


def caption(engine, groups, threads=1, most=16, decodings=None):
    """What is said of images that arrive in groups, 10 ms between them."""

    async def main():
        batches = Batches(engine, threads, most, Metrics())
        tasks = []
        for number, (group, decoding) in enumerate(zip(groups, decodings or [Decoding()] * len(groups), strict=True)):
            await asyncio.sleep(0.01 * bool(number))
            tasks += [asyncio.create_task(batches.caption(pixels(one), decoding)) for one in group]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        batches.close()
        return [one if isinstance(one, Exception) else one[0].tokens[0] for one in found]

    return asyncio.run(main())


def test_what_arrives_together_is_captioned_in_one_call():
    engine = Engine()
    assert caption(engine, [range(8)]) == list(range(8))
    assert [said for said, _ in engine.calls] == [list(range(8))]


def test_one_photo_does_not_wait_and_the_next_ones_gather_meanwhile():
    engine = Engine()
    assert caption(engine, [[0], [1, 2], [3]]) == [0, 1, 2, 3]
    assert [said for said, _ in engine.calls] == [[0], [1, 2, 3]]


def test_threads_that_are_free_share():
    engine = Engine()
    assert caption(engine, [range(7)], threads=2) == list(range(7))
    assert sorted(len(said) for said, _ in engine.calls) == [3, 4]


def test_so_many_in_a_call_at_most():
    engine = Engine(seconds=0)
    assert caption(engine, [range(10)], most=4) == list(range(10))
    assert [len(said) for said, _ in engine.calls] == [4, 4, 2]


def test_photos_of_a_call_are_searched_alike():
    engine = Engine(seconds=0)
    found = caption(engine, [[0], [1, 2], [3], [4]], decodings=[Decoding(), OTHER, Decoding(), OTHER])
    assert found == [0, 1, 2, 3, 4]
    engine = Engine(seconds=0.1)
    caption(engine, [[0], [1, 2], [3], [4]], decodings=[Decoding(), OTHER, Decoding(), OTHER])
    assert engine.calls == [([0], 3), ([1, 2, 4], 5), ([3], 3)]


def test_a_photo_that_the_captioner_fails_over_fails_alone():
    found = caption(Engine(seconds=0, fails_at=2), [range(4)])
    assert [one for one in found if not isinstance(one, Exception)] == [0, 1, 3]
    assert isinstance(found[2], TrainingError)


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_a_bug_reaches_who_waits_and_the_thread_goes_on(error, monkeypatch):
    engine = Engine(seconds=0)

    async def main():
        batches = Batches(engine, 1, 16, Metrics())
        with monkeypatch.context() as patch:
            patch.setattr(engine, "search", lambda *given: (_ for _ in ()).throw(error()))
            with pytest.raises(error):
                await batches.caption(pixels(1), Decoding())
        assert (await batches.caption(pixels(2), Decoding()))[0].tokens == (2,)
        batches.close()

    asyncio.run(main())


def test_what_was_given_up_is_not_captioned():
    engine = Engine()

    async def main():
        batches = Batches(engine, 1, 16, Metrics())
        tasks = [asyncio.create_task(batches.caption(pixels(one), Decoding())) for one in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        batches.close()

    asyncio.run(main())
    assert [said for said, _ in engine.calls] == [[0, 2, 3]]


def test_how_long_the_queue_takes_follows_the_engine():
    async def main():
        batches = Batches(Engine(seconds=0.05), 2, 16, Metrics())
        before = batches.seconds_behind(100)
        for _ in range(10):
            await batches.caption(pixels(1), Decoding())
        assert before < batches.seconds_behind(100) < 2 * 100 * 0.05
        batches.close()

    asyncio.run(main())
