"""The names of files in the folder of a run, and of the one beside such folders."""

MODEL = "model.safetensors"  # the packed captioner of a finished run
NET = "model"  # the Hugging Face folder of a finished run that slims a Transformer
RECIPE = "recipe.json"  # what was asked for
RESULT = "result.json"  # what came out: there once a run is finished
CAPTIONS = "captions.json"  # of the validation images
LOG = "log.jsonl"  # one line per logged step and per epoch
GATES = "gates.pt"  # of a supermask
TAUGHT = "taught.json"  # captions that a teacher has written, while a run lasts
LAST = "last.pt"  # the checkpoint to go on from
BESTS = "best-*.pt"  # checkpoints to ship, each with its step in its name
LOCK = "lock"  # held by the process that trains in the folder
COMPRESSED = "compressed.json"  # beside the stages of a compression: what was made and which one was chosen
STUDY = "study.json"  # beside the folders of a study's runs
OF_RUN = (
    MODEL,
    RECIPE,
    RESULT,
    CAPTIONS,
    LOG,
    GATES,
    TAUGHT,
    LAST,
    BESTS,
    LOCK,
)  # all that lies in the folder of a run


def best(step: int) -> str:
    """Name of the checkpoint to ship that was made at `step`."""
    return BESTS.replace("*", str(step))
