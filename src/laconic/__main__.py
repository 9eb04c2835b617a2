"""The command `laconic`, `python -m laconic`, and `torchrun --nproc-per-node 2 -m laconic train RECIPE.toml`.

Ready for Ctrl-C and for closed streams before anything else is imported, which may take seconds.
"""

import os
import signal
import sys
from types import FrameType

STOPPED = 130
TRAINING = "demo", "train", "study", "compress", "slim", "pack"  # verbs whose matrix products may need threads


def main() -> int:
    """Runs the command line and returns the exit code."""
    try:
        _reserve_streams()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
            signal.signal(signal.SIGINT, _stop)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _stop)
        _spare_threads(sys.argv[1:])
        from laconic.cli import main as run

        return run()
    except KeyboardInterrupt:
        _say_stopped()
        return STOPPED


def _reserve_streams() -> None:
    """Gives the numbers of closed standard streams to the null device, before the next file that is opened has them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _spare_threads(words: list[str]) -> None:
    """One thread for numpy's matrix products, unless the environment says otherwise: to start one for each core costs
    more than most verbs do with them. Not where PyTorch may work, which some builds give the same library."""
    if not set(words[:1]) & set(TRAINING) and not any("torch" in word for word in words):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _stop(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C, or the system's end: KeyboardInterrupt, SystemExit, so that what is under way is put away. But while
    modules are imported the end at once: their code makes other errors of it, and verbs import what they need before
    they begin something."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            _say_stopped()
            os._exit(128 + signum)
        frame = frame.f_back
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    _say_stopped()
    raise SystemExit(128 + signum)


def _say_stopped() -> None:
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar may have hidden it
    os.write(2, show_cursor + b"laconic: stopped\n")


if __name__ == "__main__":
    sys.exit(main())
