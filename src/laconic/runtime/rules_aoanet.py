"""How AoANet becomes programs.

`image` refines the positions, and keeps keys and values of them for the decoder, and their mean; `images` computes the
mean's share of the gates of the LSTM, and `step` reads one word. Attention on attention is a product of what was found,
one of what asked that is added to it, and the gate between their two halves.
"""

from dataclasses import replace

from laconic.runtime.decoder_layers import DecoderFile, Layers
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.runtime.weights import columns_of
from laconic.spec.captioners import AoANetConfig
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed


def plan_aoanet(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    """See laconic.models.aoanet."""
    config = spec.captioner
    if not isinstance(config, AoANetConfig):
        raise TypeError(f"not an aoanet captioner: {config}")
    layers = Layers(builder, DecoderFile(packed), "image")
    refined = _refine(layers, config, Place(grid))
    seen, width = layers.buffer(2 * config.width, kept=True), config.width
    layers.linear("key", (width, width), Place(refined), Place(seen), biased=False)
    layers.linear("value", (width, width), Place(refined), Place(seen, width))
    share = _add_share_of_mean(layers, config, refined)
    return _decode(replace(layers, program="step"), config, seen, share)


def _refine(layers: Layers, c: AoANetConfig, grid: Place) -> int:
    """The refiner. Returns the buffer of refined positions."""
    width, square = c.width, (c.width, c.width)
    x, normed, query, found = (layers.buffer(width) for _ in range(4))
    seen, answer, inner = layers.buffer(2 * width), layers.buffer(2 * width), layers.buffer(max(c.feed_forward, 1))
    layers.linear("region", (width, c.grid_channels), grid, Place(x), "RELU")
    for i in range(c.layers):
        name = f"refiner.{i}"
        layers.layer_norm(f"{name}.attention_norm", width, x, normed)
        layers.linear(f"{name}.attention.query", square, Place(normed), Place(query))
        layers.linear(f"{name}.attention.key", square, Place(normed), Place(seen), biased=False)
        layers.linear(f"{name}.attention.value", square, Place(normed), Place(seen, width))
        layers.builder.add(
            "image", "ATTEND_RELATED", query=Place(query), seen=Place(seen), y=Place(found), width=width, heads=c.heads,
            relation=NONE, relation_row=0, constant=NONE,
        )  # fmt: skip
        _answer(layers, f"{name}.attention.output", f"{name}.attention.own", width, found, normed, answer)
        layers.builder.add("image", "GLU", x=Place(answer), y=Place(found))
        layers.builder.add("image", "ADD", x=Place(found), y=Place(x), rows=width)
        if c.feed_forward:
            layers.feed_forward(name, (c.feed_forward, width), x, normed, inner)
    if not c.layers:
        return x
    layers.layer_norm("refiner_norm", width, x, normed)
    return normed


def _add_share_of_mean(layers: Layers, c: AoANetConfig, refined: int) -> int:
    """Adds what the mean of refined positions brings to the gates, their biases included; returns the buffer."""
    builder, name = layers.builder, "lstm.weight_ih"
    mean, share = builder.buffer(c.width, "IMAGES"), builder.buffer(4 * c.width, "IMAGES")
    builder.add("image", "MEAN", x=refined, y=mean)
    given = columns_of(layers.file.matrix(name, 4 * c.width, 2 * c.width), c.width, 2 * c.width)
    matrix = builder.matrix(given, layers.lstm_bias("lstm", c.width), step=layers.file.step(name))
    builder.linear("images", Place(mean), Place(share), matrix)
    return share


def _decode(layers: Layers, c: AoANetConfig, seen: int, share: int) -> dict[str, int]:
    """One word of each caption. `seen`: keys and values of each image; `share`: its mean's, in the gates."""
    width = c.width
    inputs, hidden = layers.buffer(2 * width, kept=range(width, 2 * width)), layers.buffer(width, kept=True)
    normed, query, found = (layers.buffer(width) for _ in range(3))
    answer, context = layers.buffer(2 * width), Place(inputs, width)  # inputs: [word ; context]
    layers.embed(c, width, Place(inputs), relu=True)
    gates = [
        layers.product("lstm.weight_ih", 4 * width, 2 * width, Place(inputs)),
        layers.product("lstm.weight_hh", 4 * width, width, Place(hidden)),
    ]
    layers.lstm(gates, None, Place(hidden), image=share)
    layers.layer_norm("query_norm", width, hidden, normed)
    layers.linear("query", (width, width), Place(normed), Place(query))
    layers.builder.add(
        "step", "ATTEND_POSITIONS", query=Place(query), seen=Place(seen), y=Place(found), width=width, heads=c.heads
    )
    _answer(layers, "found", "own", width, found, hidden, answer)
    layers.builder.add("step", "GLU", x=Place(answer), y=context)
    return layers.predict(c, context, width, width)


def _answer(layers: Layers, by_found: str, by_own: str, width: int, found: int, own: int, answer: int) -> None:
    """Information and gate below it, of what was found and of what asked for it."""
    size = (2 * width, width)
    layers.linear(by_found, size, Place(found), Place(answer))
    layers.linear(by_own, size, Place(own), Place(answer), start="FROM_SELF", biased=False)
