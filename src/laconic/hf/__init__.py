"""Models of Hugging Face transformers: those laconic adds to them, slim ones in ordinary folders, and captioners as a
pipeline.

    hf.Captioner.from_pretrained()("photo.jpg")    # [{"generated_text": "a dog runs through the grass"}]
    net = hf.from_pretrained("slim_blip")          # dense or slim, of transformers or of laconic
    hf.save_pretrained(net, "other", tokenizer)

Names are loaded when they are first used: transformers takes seconds to import.
"""

from typing import TYPE_CHECKING

from laconic.lazy import lazily

if TYPE_CHECKING:
    from laconic.hf.blip import BlipCaptioner
    from laconic.hf.captioner import Captioner
    from laconic.hf.folders import from_pretrained, save_pretrained
    from laconic.hf.nlvr2 import BlipForVisualReasoning, with_two_images
    from laconic.hf.padding import answer, honour_padding
    from laconic.hf.patches import fit_channels
    from laconic.hf.segmenter import Segmenter, SegmenterConfig
    from laconic.hf.tokens import make_tokenizer

_HOME = {  # public name -> module that defines it
    "BlipCaptioner": "laconic.hf.blip",
    "BlipForVisualReasoning": "laconic.hf.nlvr2",
    "Captioner": "laconic.hf.captioner",
    "Segmenter": "laconic.hf.segmenter",
    "SegmenterConfig": "laconic.hf.segmenter",
    "answer": "laconic.hf.padding",
    "fit_channels": "laconic.hf.patches",
    "from_pretrained": "laconic.hf.folders",
    "honour_padding": "laconic.hf.padding",
    "make_tokenizer": "laconic.hf.tokens",
    "save_pretrained": "laconic.hf.folders",
    "with_two_images": "laconic.hf.nlvr2",
}

__all__ = [
    "BlipCaptioner",
    "BlipForVisualReasoning",
    "Captioner",
    "Segmenter",
    "SegmenterConfig",
    "answer",
    "fit_channels",
    "from_pretrained",
    "honour_padding",
    "make_tokenizer",
    "save_pretrained",
    "with_two_images",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
