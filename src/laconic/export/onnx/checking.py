"""Whether an exported search says what the captioner says: ONNX Runtime beside PyTorch, once, on noise."""

from onnx import ModelProto

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.export.onnx.modules import example_of, images_of

CLOSE = 1e-2  # how far log-probabilities of a word may be apart; rounding is below a hundredth of that


def check(greedy: ModelProto, captioner: ImageCaptioner, max_length: int) -> None:
    """ConfigError where they differ; TrainingError where the captioner itself gives numbers that are no probabilities.

    The likeliest words of equal captions begun are compared by what they cost: of two that are as likely, either will
    do.
    """
    import onnxruntime

    example = example_of(captioner, 1)
    expected = captioner.search(images_of(example), Decoding(beam=1, max_length=max_length))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(greedy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {name: tensor.numpy() for name, tensor in example.items()}
    for tokens, costs, (best, *_) in zip(*session.run(["tokens", "log_probs"], given), expected, strict=True):
        for place, cost in enumerate(best.log_probs):
            if not abs(costs[place] - cost) <= CLOSE:
                named = f"{captioner.config.decoder.name} on {captioner.config.encoder.name}"
                raise ConfigError(
                    f"{named}: as ONNX the log-probability of its word {place + 1} is {costs[place]:.3g}, and not "
                    f"{cost:.3g}; this captioner cannot be exported with this version of PyTorch"
                )
            if place < len(best.tokens) and tokens[place] != best.tokens[place]:
                break
