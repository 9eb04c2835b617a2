"""Model cards: the README.md of a model folder, from what is known of the model and from nothing else."""

from pathlib import Path

from laconic.spec.packed import CaptionerSpec
from laconic.store.inspection import Inspection

CARD = "README.md"


def write_card(folder: Path, earlier: Path, text: str) -> None:
    """Writes a card into a folder that is to take the place of `earlier`, whose card stays: somebody filled it in."""
    old = earlier / CARD
    (folder / CARD).write_bytes(old.read_bytes() if old.is_file() else text.encode("utf8"))


def captioner_card(spec: CaptionerSpec, inspection: Inspection) -> str:
    """The card of a packed captioner."""
    model, zeros = spec.model, inspection.sparsity
    return f"""---
library_name: laconic
pipeline_tag: image-to-text
tags: [image-captioning, sparse, pruned, quantized]
---

# {model.decoder.name} on {model.encoder.name}

An image captioner in one packed file of {inspection.file_bytes:,} bytes, its encoder and vocabulary included.
`pip install laconic` runs it on a CPU, without PyTorch.

```python
import laconic

pipe = laconic.hf.Captioner.from_pretrained("this folder")
pipe("photo.jpg")  # [{{"generated_text": "..."}}]
```

| | |
|---|---|
| encoder | `{model.encoder.name}`, {model.encoder.size} x {model.encoder.size} pixels |
| captioner | `{model.decoder.name}` |
| weights | {inspection.non_zeros:,} of {inspection.weights:,} are not zero ({zeros:.1%} are) |
| words | {len(spec.vocabulary.words):,} |

## To be filled in

What it was trained on and under which licence, how well it captions which data, and what it must not be used for.
Laconic knows none of it from the file: `laconic evaluate model.safetensors --data DATA --root DIR` gives scores.
"""


def slim_card(kind: str, parameters: int, widths: dict[str, int] | None) -> str:
    """The card of a folder of transformers, dense or slim.

    Args:
        kind: its class.
        parameters: their number.
        widths: of the groups that were made smaller; None of a dense model.
    """
    slimmed = (
        f"{len(widths)} groups of its units are smaller than in the dense model (`slim_dims` in config.json), so\n"
        "transformers alone cannot load it; laconic can:"
        if widths
        else "It opens in transformers, and in laconic:"
    )
    return f"""---
library_name: transformers
tags: [{"pruned, " if widths else ""}laconic]
---

# {kind}, {parameters / 1e6:.2f} M parameters

{slimmed}

```python
import laconic

net = laconic.hf.from_pretrained("this folder")
```

## To be filled in

What it was trained on and under which licence, how well it does its task, and what it must not be used for.
"""
