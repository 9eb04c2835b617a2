"""Captions photos with a captioner of laconic in ONNX Runtime; needs onnxruntime, numpy and Pillow, and no laconic.

    laconic export flickr8k_tiny captioner --to onnx
    python onnx_caption.py captioner/greedy.onnx photo.jpg another.jpg

The captions are those of `laconic caption --beam 1`.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) < 3:
    sys.exit(__doc__)
model, *photos = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
words, first = json.loads(facts["vocabulary"]), 1 + max(json.loads(facts["special_ids"]).values())
size, base, digits = (int(facts[name]) for name in ("image_size", "radix_base", "tokens_per_word"))


def read(path):
    image = Image.open(path)
    image.draft(None, (size, size))  # a JPEG comes at half of its size or less where that is enough
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))


tokens, log_probs = session.run(["tokens", "log_probs"], {"pixels": np.stack([read(path) for path in photos])})
for path, said in zip(photos, tokens, strict=True):
    spelled = said[said >= first].reshape(-1, digits) - first  # some captioners spell words, by digits to a base
    print(path, " ".join(words[first + number] for number in spelled @ base ** np.arange(digits)[::-1]), sep="\t")
