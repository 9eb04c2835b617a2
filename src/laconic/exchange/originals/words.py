"""Tokenizers for converted checkpoints, which hold none: BERT's with BLIP's two tokens, or CLIP's as it is."""

from pathlib import Path
from typing import Any

from laconic.errors import FormatError, printable
from laconic.exchange.originals.models import Original
from laconic.hf.tokens import blip_tokenizer, read_tokenizer
from laconic.tasks.nets import Tokenizer


def words_of(found: Original, folder: Path | None) -> Tokenizer | None:
    """The tokenizer to save beside a model; None where no folder is given.

    Where the published program sets [ENC] before what is asked, the tokenizer puts it there in the place of [CLS].

    Raises:
        FormatError: no tokenizer in the folder, one of another size than the model's vocabulary, or one for a model
            that reads no text.
    """
    if folder is None:
        return None
    if not found.words:
        raise FormatError(f"{printable(folder)}: {found.family} reads no text; leave --tokenizer out")
    tokenizer = read_tokenizer(folder)
    if found.words == "BERT":
        tokenizer = blip_tokenizer(tokenizer.backend_tokenizer, found.first)
    config: Any = found.net.config
    size = config.text_config.vocab_size
    if len(tokenizer) != size:
        raise FormatError(
            f"{printable(folder)}: its tokenizer has {len(tokenizer)} tokens and {found.family} {size}; give the one "
            f"of {'bert-base-uncased' if found.words == 'BERT' else 'CLIP'}"
        )
    return tokenizer
