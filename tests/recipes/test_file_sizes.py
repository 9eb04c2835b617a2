import pytest

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.errors import ConfigError
from laconic.recipes.file_sizes import MOST_SPARSE, predicted_bytes, sizes, sparsity_for
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary


@pytest.fixture
def captioner() -> ImageCaptioner:
    decoder = DecoderConfig("up_down", {"word": 64, "hidden": 64, "attention": 32})
    config = ModelConfig(EncoderConfig("convnet", size=32), decoder)
    return ImageCaptioner(config, Vocabulary((*SPECIALS, *(f"word{i}" for i in range(96)))))


def test_a_predicted_size_falls_with_the_sparsity_and_the_bits(captioner: ImageCaptioner) -> None:
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    found = [predicted_bytes(captioner, share, 4) for share in (0.0, 0.5, 0.9)]
    assert found == sorted(found, reverse=True)
    assert predicted_bytes(captioner, 0.5, 3) < found[1]
    assert all(tensor.equal(captioner.state_dict()[name]) for name, tensor in before.items())


def test_the_sparsity_for_a_budget_fits_it_closely(captioner: ImageCaptioner) -> None:
    size_at = sizes(captioner, 4)
    budget = (size_at(0.0) + size_at(0.9)) // 2
    found = sparsity_for(size_at, budget)
    assert 0.98 * budget < predicted_bytes(captioner, found, 4) <= budget
    assert sparsity_for(size_at, size_at(0.0) + 1) == 0.0
    with pytest.raises(ConfigError, match="are too few"):
        sparsity_for(size_at, size_at(MOST_SPARSE) - 1)


def test_no_size_is_worked_out_twice(captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def size(_: object, sparsity: float, bits: int, where: str) -> int:
        asked.append(sparsity)
        return round(1000 * (1 - sparsity))

    monkeypatch.setattr("laconic.recipes.file_sizes.predicted_bytes", size)
    size_at = sizes(captioner, 4)
    first = sparsity_for(size_at, 500)
    assert sparsity_for(size_at, 500) == first
    assert len(asked) == len(set(asked))
