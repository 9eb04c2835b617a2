"""The command line: one frozen dataclass of options and one short function per verb, in the table VERBS.

Every error that the user can do something about is one line on standard error and exit code 2; Ctrl-C is 130.
Torch is imported by the verbs that need it, so that `--help`, `score` and `inspect` start at once.

    arguments   words to values, through tyro; verbs know nothing of it
    paths       which options are files, and what earlier ones look like
    overwriting what may be written over
    messages    text from outside, fit for a terminal
    documents   JSON
    console     tables
    progress    bars, or a line now and then
    carrying    recipes, watched
    training    demo, train
    slim        slim
    study       study, report
    scores      evaluate, score
    pack        pack
    packed      inspect, unpack, diff
    plan        plan
    export      export
    serve       serve
    caption     caption
    convert     convert
    bench       bench
"""

import difflib
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import laconic
from laconic.cli.arguments import Verb, parse, with_threads
from laconic.cli.messages import drop_output, open_streams, say
from laconic.cli.overwriting import check_paths, writes
from laconic.errors import ConfigError, LaconicError, LaconicWarning, not_installed

WRONG_USE, STOPPED, BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code. `argv` is sys.argv without the program's name by default."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shown = open_streams()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", LaconicWarning)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            code = _dispatch(arguments, shown)
        sys.stdout.flush()
        return code
    except LaconicError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if missing := not_installed(error):
            return _fail(str(missing))
        raise
    except KeyboardInterrupt:
        _fail(_how_to_go_on(arguments))
        return STOPPED
    except BrokenPipeError:  # `laconic inspect FILE | head`
        drop_output()
        return BROKEN_PIPE
    except MemoryError:
        return _fail("too little memory is free for this; close other programs, or give it less at once")
    except OSError as error:
        if not error.strerror:
            raise
        drop_output()  # where that is what failed, it fails again at the end
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)


def _dispatch(arguments: list[str], shown: bool) -> int:
    """`shown`: there is a standard output."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else WRONG_USE
    if arguments[0] in ("--version", "-V"):
        print(f"laconic {laconic.__version__}")
        return 0
    name, *rest = arguments
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(VERBS)}"
        raise ConfigError(f"no verb {name!r}; {hint}")
    verb = VERBS[name]
    try:
        options = parse(name, verb, rest)
    except SystemExit:  # tyro has printed its help
        print(f"example:\n  {verb.example}")
        return 0
    check_paths(options)
    if not shown and not writes(options):
        raise ConfigError("standard output is closed, so nothing would be shown; leave it open, or write to a file")
    return verb.run(with_threads(options)) or 0


def _overview() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: laconic VERB ...",
            "",
            "Makes image captioners and vision-language models small and fast.",
            "",
            *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()),
            "",
            "laconic VERB --help shows a verb's options; laconic --version the version.",
            "",
            "example:",
            "  laconic demo",
        ]
    )


# Messages


def _show_warning(other: Callable[..., None], message: Warning | str, *where: Any) -> None:
    """A LaconicWarning is one line, as errors are; what other packages warn of is shown as they mean it."""
    if isinstance(message, LaconicWarning):
        say(f"note: {message}")
    else:
        other(message, *where)


def _fail(message: str) -> int:
    say(message)
    return WRONG_USE


def _how_to_go_on(arguments: list[str]) -> str:
    if arguments[:1] in (["train"], ["slim"]):
        again = [*arguments, *(["--resume"] if "--resume" not in arguments else [])]
        return f"stopped; continue with: {shlex.join(['laconic', *again])}"
    if arguments[:1] in (["demo"], ["study"], ["compress"]):
        return f"stopped; continue with: {shlex.join(['laconic', *arguments])}"
    return "stopped"


# Verbs. The module of one is imported when it is called for: the others would take as long again.


def _type(module: str, name: str) -> Callable[[], type]:
    """A verb's options, a class of that module of this package."""
    return lambda: _named(module, name)  # type: ignore[no-any-return]


def _made(module: str, name: str) -> Callable[[], type]:
    """A verb's options, from a function that makes the class."""
    return lambda: _named(module, name)()  # type: ignore[no-any-return]


def _done(module: str, name: str) -> Callable[[Any], Any]:
    """A function of a module."""
    return lambda given: _named(module, name)(given)


def _named(module: str, name: str) -> Any:
    return getattr(import_module(f"laconic.cli.{module}"), name)


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "train, prune, pack, score and caption generated scenes in a few minutes",
        "laconic demo --out runs/demo",
        _made("training", "demo_options"),
        _done("training", "run_demo"),
    ),
    "train": Verb(
        "train a captioner as a recipe says",
        "laconic train recipes/flickr8k_smp95.toml --data.root data/flickr8k --training.epochs 10",
        _type("training", "Train"),
        _done("training", "train"),
        _done("training", "train_defaults"),
    ),
    "slim": Verb(
        "make a Hugging Face model smaller: prune its units, then train it on",
        "laconic slim my_clip --task retrieval --data flickr8k --root data/flickr8k --ratio 0.5 -o runs/slim_clip",
        _type("slim", "SlimFolder"),
        _done("slim", "slim"),
    ),
    "compress": Verb(
        "make a trained captioner as small as asked for: prune, quantise, train, pack",
        "laconic compress runs/flickr8k_dense --budget 1MB -o runs/small",
        _type("compress", "Compress"),
        _done("compress", "compress"),
    ),
    "study": Verb(
        "carry out many recipes that differ in a few settings",
        "laconic study recipes/studies/flickr8k_methods.toml --jobs 2 --threads 1",
        _type("study", "Study"),
        _done("study", "study"),
    ),
    "report": Verb(
        "turn runs into a CSV file, tables, figures and captioned photos",
        "laconic report runs/flickr8k_methods -o results/flickr8k_methods",
        _type("study", "Report"),
        _done("study", "report"),
    ),
    "evaluate": Verb(
        "caption a data set and score the captions",
        "laconic evaluate tiny.safetensors --data flickr8k --root data/flickr8k --split val --beam 3",
        _made("scores", "evaluate_options"),
        _done("scores", "evaluate"),
    ),
    "score": Verb(
        "score a file of captions",
        "laconic score --references captions_val.json --results mine.json --json -",
        _made("scores", "score_options"),
        _done("scores", "score"),
    ),
    "pack": Verb(
        "pack a trained captioner into one small file",
        "laconic pack runs/flickr8k_smp95 -o tiny.safetensors",
        _made("pack", "pack_options"),
        _done("pack", "pack"),
    ),
    "convert": Verb(
        "convert a published checkpoint into one small file, or into a Hugging Face folder",
        "laconic convert updown_tiny3 -o tiny3.safetensors",
        _made("convert", "convert_options"),
        _done("convert", "convert"),
        _done("convert", "convert_defaults"),
    ),
    "inspect": Verb(
        "show what a packed file holds and costs",
        "laconic inspect tiny.safetensors",
        _type("packed", "Inspect"),
        _done("packed", "inspect"),
    ),
    "unpack": Verb(
        "turn a packed file into an ordinary safetensors file",
        "laconic unpack tiny.safetensors -o dense.safetensors",
        _type("packed", "Unpack"),
        _done("packed", "unpack"),
    ),
    "diff": Verb(
        "show what differs between two packed files",
        "laconic diff half.safetensors compact.safetensors",
        _type("packed", "Diff"),
        _done("packed", "diff"),
    ),
    "plan": Verb(
        "turn a packed captioner into a file for programs without Python",
        "laconic plan tiny.safetensors -o tiny.plan",
        _type("plan", "Plan"),
        _done("plan", "plan"),
    ),
    "export": Verb(
        "write a captioner as a page for browsers, as ONNX files, or as sources for an application",
        "laconic export flickr8k_tiny site/ --to web",
        _type("export", "Export"),
        _done("export", "export"),
    ),
    "serve": Verb(
        "caption photos over HTTP, with a page to drop them on",
        "laconic serve tiny.safetensors --port 8000",
        _type("serve", "Serve"),
        _done("serve", "serve"),
    ),
    "caption": Verb(
        "caption photos, or region features",
        "laconic caption tiny.safetensors photo.jpg holiday/",
        _type("caption", "Caption"),
        _done("caption", "caption"),
    ),
    "bench": Verb(
        "time a captioner beside other ways to run it",
        "laconic bench tiny.safetensors photo.jpg --beam 5",
        _type("bench", "Bench"),
        _done("bench", "bench"),
    ),
}
