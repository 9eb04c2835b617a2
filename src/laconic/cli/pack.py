"""The verb `pack`: a run, or a packed file, in another precision, calibrated on images where that helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from laconic.cli.arguments import model_file
from laconic.cli.console import size_line
from laconic.cli.messages import show
from laconic.cli.paths import Overwrite, PackedFile
from laconic.errors import ConfigError, DataError
from laconic.machine.process import bound_threads

if TYPE_CHECKING:
    from laconic.captioner.image_captioner import ImageCaptioner
    from laconic.recipes.calibration import Batch
    from laconic.store import Packed

STEPPED = ("fine", "compact")


@dataclass(frozen=True)
class Pack:
    """Packs a trained captioner, encoder and vocabulary included, into one small safetensors file."""

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """The folder of a finished run, or a packed captioner."""
    out: PackedFile
    """The file to write."""
    values: Literal["exact", "half", "fine", "compact"] = "half"
    """Precision of the weights: exact (float32), half (float16), fine (logits within 1 %) or compact (within 2 % from
    photos, 6 % from region features). Fine and compact are calibrated on images."""
    calibrate: Annotated[int, arg(metavar="N")] = 64
    """Training images of the run to calibrate on; 0 rounds plainly, which ruins most captioners with an encoder."""
    images: Annotated[tuple[Path, ...], arg(metavar="IMAGE")] = ()
    """Calibrate on these instead, and on what the captioner says of them: photos or .npy files of region features, or
    folders of them."""
    overwrite: Overwrite = False


def pack(options: Pack) -> None:
    """Writes the file and says on what it was calibrated and how small it is."""
    source = model_file(options.run)
    if options.calibrate < 0:
        raise ConfigError(f"--calibrate {options.calibrate}: give a number of images, or 0 to round plainly")
    if options.images and options.values not in STEPPED:
        raise ConfigError(f"--images: values {options.values} are not calibrated; give --values fine or compact")
    import laconic
    from laconic import store

    packed = store.load(source)
    if options.images and packed.precision == options.values:
        raise ConfigError(f"{source}: is {packed.precision} already; give the exact file, or leave --images out")
    provenance = packed.provenance | {"laconic": laconic.__version__}
    model: Packed | ImageCaptioner = packed
    steps = None
    if options.values not in ("exact", packed.precision):  # what is written as it was keeps every bit
        from laconic.captioner.packing import fold, load

        bound_threads()
        captioner = model = load(source)
        if options.values in STEPPED and (options.calibrate or options.images):
            steps = calibrated(captioner, options.values, _batches(captioner, options), bool(options.images))
            provenance["calibrated"] = True
        else:
            fold(captioner)
    store.save(
        model,
        options.out,
        values=options.values,
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
