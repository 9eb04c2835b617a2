"""Tokenizers: of a folder, or fresh ones, WordPiece as BERT and BLIP have it, learned from the training texts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from laconic.errors import ConfigError, FormatError, printable

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")  # the last two are BLIP's
ALPHABET = 1000  # most characters that are words of their own


def make_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer that puts [CLS] before and [SEP] after; the same texts give the same one.

    Ids of the special tokens are 0 to 6 in the order of SPECIALS. [DEC] is the token that begins what a decoder
    writes, `bos_token`; [SEP] ends it, `eos_token`.

    Args:
        texts: to learn words from.
        size: most tokens, special ones and single characters included.

    Raises:
        ConfigError: too small for the characters of the texts, or no text at all.
    """
    texts = list(texts)
    letters = {letter for text in texts for letter in text.lower() if not letter.isspace()}
    if not letters:
        raise ConfigError("no text to learn a tokenizer from")
    if len(letters) > ALPHABET:
        raise ConfigError(f"the texts have {len(letters)} different characters; a tokenizer takes at most {ALPHABET}")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    vocabulary = _learned(tokenizer, texts, size)
    if len(vocabulary) > size:
        raise ConfigError(f"a vocabulary of {size} is too small: the characters alone are {len(vocabulary)}")
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    return blip_tokenizer(tokenizer)


def blip_tokenizer(words: Tokenizer, first: str = "[CLS]") -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer as BLIP uses it: with SPECIALS, those it lacks added at the end of its vocabulary.

    Args:
        words: changed by this.
        first: the special token that begins a text; the last one is [SEP].
    """
    words.add_special_tokens(list(SPECIALS))
    words.post_processor = processors.TemplateProcessing(
        single=f"{first} $A [SEP]",
        pair=f"{first} $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, words.token_to_id(token)) for token in (first, "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
        eos_token="[SEP]",
        additional_special_tokens=["[ENC]"],
    )


def _learned(tokenizer: Tokenizer, texts: list[str], size: int) -> dict[str, int]:
    """Token -> id, learned by a copy of the tokenizer.

    The trainer numbers the letters inside of words as it meets them, in an order that is another in each process, and
    lets the lower number win among pairs that are equally frequent. So they get their numbers here beforehand.
    """
    learner = Tokenizer.from_str(tokenizer.to_str())
    words = {
        word
        for text in texts
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text))
    }
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIALS, *inside], limit_alphabet=ALPHABET, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    found: dict[str, int] = learner.get_vocab()
    return found


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a Hugging Face folder. FormatError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{printable(folder)}: no tokenizer can be read there ({' '.join(str(error).split())[:200]}); save the "
            "model's own beside it, with tokenizer.save_pretrained(folder)"
        ) from error
