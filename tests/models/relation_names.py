"""Names in the published code of the Object Relation Transformer's parameters: load with `runpy.run_path`."""

import re
from collections.abc import Sequence

LINEAR = {  # in an attention, by what it shares
    "none": {"query": 0, "key": 1, "value": 2, "output": 3},
    "kv": {"query": 0, "key_value": 1, "output": 2},
    "qk": {"query_key": 0, "value": 1, "output": 2},
}


def published_name(name: str, share: str = "none", order: Sequence[int] = ()) -> str:
    """Name in the published code of one of our parameters; `{head}` where there is one for each head.

    share, order: share_attention and share_layers; a layer bears the number of the first place where it stands.
    """
    linear = LINEAR[share]
    norms = {"attention_norm": 0, "memory_norm": 1, "feed_forward_norm": 2 if name.startswith("decoder") else 1}
    if order:
        name = re.sub(r"^(encoder|decoder|relation)\.(\d+)", lambda m: f"{m[1]}.{list(order).index(int(m[2]))}", name)
    name = re.sub(r"^(encoder|decoder)\.", r"model.\1.layers.", name)
    name = re.sub(r"^(encoder|decoder)_norm", r"model.\1.norm", name)
    name = re.sub(r"^relation\.(\d+)", r"model.encoder.layers.\1.self_attn.WGs.{head}", name)
    name = re.sub(r"\.memory_attention\.(\w+)", lambda m: f".src_attn.linears.{linear[m[1]]}", name)
    name = re.sub(r"\.attention\.(\w+)", lambda m: f".self_attn.linears.{linear[m[1]]}", name)
    name = re.sub(r"\.(\w+_norm)\.", lambda m: f".sublayer.{norms[m[1]]}.norm.", name)
    name = re.sub(r"norm\.weight$", "norm.a_2", re.sub(r"norm\.bias$", "norm.b_2", name))
    name = name.replace(".inner.", ".w_1.").replace(".outer.", ".w_2.")
    for ours, theirs in {"region": "att_embed.0", "embedding": "model.tgt_embed.0.lut"}.items():
        name = re.sub(rf"^{ours}\.", f"{theirs}.", name)
    return re.sub(r"^output\.", "model.generator.proj.", name)
