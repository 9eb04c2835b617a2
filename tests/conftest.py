"""What tests share: where reference data lies, a toy encoder, one torch thread so that two workers do not fight."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import pytest

from laconic.spec import encoders as encoder_table

SHARED = Path(os.environ.get("LACONIC_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data (photos, weights, published scores); skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}; set LACONIC_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of small golden values kept in the repository."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def toy_encoder() -> Iterator[None]:
    """Rows of an encoder "toy" in both tables: what is tested with it packs and trains in a moment.

    Its modules are those of MobileNet. Tests that import no torch build no encoder.
    """
    if "torch" not in sys.modules:
        yield
        return
    from torch import Tensor, nn

    from laconic.models import encoders
    from laconic.models.layers import Conv, Features, flatten, pool
    from laconic.models.mobilenet import SeparableBlock
    from laconic.runtime import rules_encoders
    from laconic.runtime.encoder_maps import Map, Maps

    class Toy(nn.Module):
        """Images (N, 3, H, W) -> Features; the grid has stride 16 (`block2`) or 32 (`block3`)."""

        def __init__(self, stride: int = 32, norm: bool = False) -> None:
            super().__init__()
            self.conv0 = Conv(3, 8, 3, 4, norm=norm)
            for i, (inputs, outputs) in enumerate([(8, 16), (16, 16), (16, 24)], start=1):
                self.add_module(f"block{i}", SeparableBlock(inputs, outputs, 2, norm))
            self.fine = stride == 16

        def forward(self, images: Tensor) -> Features:
            middle = self.block2(self.block1(self.conv0(images)))
            last = self.block3(middle)
            return Features(flatten(middle if self.fine else last), pool(last))

    def toy(maps: Maps) -> Iterator[Map]:
        x = maps.convolve(maps.pixels(), "conv0", stride=4)
        for i, grid_stride in enumerate((0, 16, 32), start=1):
            x = maps.depthwise(x, f"block{i}.depthwise", stride=2)
            x = maps.convolve(x, f"block{i}.pointwise", grid=grid_stride == maps.stride)
            yield x

    rules_encoders.RULES["toy"] = toy
    encoder_table.ENCODERS["toy"] = encoder_table.EncoderFacts({16: 16, 32: 24}, 24)
    encoders.ENCODERS["toy"] = Toy
    yield
    del encoder_table.ENCODERS["toy"], encoders.ENCODERS["toy"], rules_encoders.RULES["toy"]


SMALL = {  # options of captioners that are small, and odd enough to have rows and columns left over
    "soft_attention": {"word": 24, "hidden": 40},
    "up_down": {"word": 24, "hidden": 40, "attention": 24},
    "object_relation": {"layers": 2, "width": 32, "feed_forward": 48, "heads": 4},
    "aoanet": {"layers": 1, "width": 40, "feed_forward": 48, "heads": 4},
}


# factor of weights that says many things
LOUDNESS = {"soft_attention": 4.0, "up_down": 6, "object_relation": 4.0, "aoanet": 3.0}


@pytest.fixture(scope="session")
def random_captioner(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Packs a small captioner whose random weights are mostly zero, and large enough to say many things; the same file
    for the same arguments: random_captioner("up_down", EncoderConfig("regions", channels=12), tied=True)."""
    from laconic.spec.model import EncoderConfig

    @functools.cache
    def make(decoder: str, encoder: EncoderConfig, values: str = "exact", **options: object) -> Path:
        import torch

        from laconic.captioner.image_captioner import ImageCaptioner
        from laconic.captioner.packing import save
        from laconic.spec.model import DecoderConfig, ModelConfig
        from laconic.text import Vocabulary

        words = Vocabulary.build([f"word{i} thing{i}" for i in range(40)], 1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            chosen = DecoderConfig(decoder, {**SMALL[decoder], **options})
            captioner = ImageCaptioner(ModelConfig(encoder, chosen), words)
            with torch.no_grad():
                for name, weight in captioner.decoder.named_parameters():
                    if weight.ndim > 1:
                        weight.mul_(LOUDNESS[decoder]).mul_(torch.rand_like(weight) > 0.6)
                    elif name == "output.bias":
                        weight.uniform_(-1, 1)
        path = tmp_path_factory.mktemp("packed") / f"{decoder}.safetensors"
        save(captioner, path, values)
        return path

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is run as a program sets PyTorch's threads for its process; the tests after it go on with one."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
