"""The verb `pack`: a run, or a packed file, in another precision, calibrated on images where that helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from laconic.cli.arguments import model_file, with_types
from laconic.cli.console import size_line
from laconic.cli.messages import show
from laconic.cli.paths import Overwrite, PackedFile
from laconic.errors import ConfigError, DataError
from laconic.machine.process import bound_threads

if TYPE_CHECKING:
    from laconic.captioner.image_captioner import ImageCaptioner
    from laconic.recipes.calibration import Batch
    from laconic.store import Packed


def is_calibrated(values: str) -> bool:
    """Whether weights of this precision are fitted to images."""
    from laconic.store.values import VALUES

    return VALUES[values].error > 0


def check_as_trained(values: str, held: str, source: Path) -> None:
    """ConfigError where a file of precision `held` is to become one of weights that learned on grids, and is not."""
    from laconic.store.values import VALUES

    if VALUES[values].as_trained and not VALUES[held].as_trained:
        raise ConfigError(
            f"{source}: its weights were not quantised while they learned; train them with quantization.bits, or give "
            "other --values"
        )


@dataclass(frozen=True)
class Pack:
    """Packs a trained captioner, encoder and vocabulary included, into one small safetensors file."""

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """The folder of a finished run, or a packed captioner."""
    out: PackedFile
    """The file to write."""
    values: str | None = None
    """Precision of the weights. "exact" is float32, "half" float16. "fine" and "compact" are smaller still, and
    calibrated on images: the logits move by about 1 %, or by 2 % (6 % on region features). "trained" keeps, without any
    loss, what a run with quantization.bits has learned in 2 to 8 bits. By default "trained" for such a run, else
    "half"."""
    calibrate: Annotated[int, arg(metavar="N")] = 64
    """How many of the run's training images to calibrate on. 0 rounds without calibration, which ruins most captioners
    that have an encoder."""
    images: Annotated[tuple[Path, ...], arg(metavar="IMAGE")] = ()
    """Calibrate on these photos or region features instead, with the captioner's own captions."""
    overwrite: Overwrite = False


def with_precisions(options: type) -> type:
    from laconic.store.values import VALUES

    return with_types(options, values=Literal[tuple(VALUES)])


def pack_options() -> type:
    from laconic.store.values import VALUES

    return with_types(Pack, values=Literal[tuple(VALUES)] | None)


def pack(options: Pack) -> None:
    """Writes the file and says on what it was calibrated and how small it is."""
    source = model_file(options.run)
    if options.calibrate < 0:
        raise ConfigError(f"--calibrate {options.calibrate}: give a number of images, or 0 to round plainly")
    import laconic
    from laconic import store

    packed = store.load(source)
    values = options.values or (packed.precision if store.VALUES[packed.precision].as_trained else "half")
    check_as_trained(values, packed.precision, source)
    if options.images and not is_calibrated(values):
        raise ConfigError(f"--images: values {values} are not calibrated; give --values fine or compact")
    if options.images and packed.precision == values:
        raise ConfigError(f"{source}: is {packed.precision} already; give the exact file, or leave --images out")
    provenance = packed.provenance | {"laconic": laconic.__version__}
    model: Packed | ImageCaptioner = packed
    steps = None
    if values not in ("exact", packed.precision):  # what is written as it was keeps every bit
        from laconic.captioner.packing import fold, load

        bound_threads()
        captioner = model = load(source)
        if is_calibrated(values) and (options.calibrate or options.images):
            steps = calibrated(captioner, values, _batches(captioner, options), bool(options.images))
            provenance["calibrated"] = True
        else:
            fold(captioner)
    store.save(
        model,
        options.out,
        values=values,
        steps=steps,
        config=packed.config,
        vocabulary=packed.vocabulary,
        provenance=provenance,
    )
    show(size_line(store.inspect(options.out)))


def calibrated(captioner: "ImageCaptioner", values: str, batches: "Sequence[Batch]", own: bool) -> dict[str, float]:
    """Quantises in place and says so; the steps. `own`: the batches hold the captioner's own captions."""
    from laconic.recipes.calibration import calibrate, hold_captions

    count = sum(len(images) for images, _ in batches)
    show(f"calibrating on {count:,} image{'s' if count > 1 else ''} ...")
    steps = calibrate(captioner, values, batches)
    if own:
        held = hold_captions(captioner, batches, steps)
        show(f"greedy captions of these images: {'all unchanged' if held else 'some may have changed'}")
    return steps


def _batches(captioner: "ImageCaptioner", options: Pack) -> "list[Batch]":
    """From the images named, or from the run's training data."""
    from laconic.recipes.calibration import named_batches, training_batches

    if options.images:
        return named_batches(captioner, options.images)
    remedy = "name some with --images, or give --calibrate 0 to round plainly"
    if not options.run.is_dir():
        raise ConfigError(f"{options.run}: is no run, whose training images would calibrate it; {remedy}")
    try:
        return training_batches(captioner, options.run, options.calibrate)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"no training images to calibrate on; {remedy} ({error})") from None
