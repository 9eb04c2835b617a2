"""Every error laconic raises on purpose.

    LaconicError
    ├── ConfigError      a recipe, option or argument that cannot be right
    ├── DataError        a data set, annotation file or image that cannot be used
    ├── FormatError      a model file or checkpoint that is damaged, unknown or hostile
    ├── PruningError     a pruning request that cannot be met on this model
    ├── TrainingError    a run that cannot start, resume or go on
    └── MissingError     an optional package or program that is not installed

A message says what is wrong, where, and what to do. The command line prints it as one line and exits with 2;
anything that is not a LaconicError is a bug in laconic and keeps its traceback.
"""


class LaconicError(Exception):
    """Base of all errors that the user can do something about."""


class ConfigError(LaconicError):
    """A recipe, option or argument that cannot be right."""


class DataError(LaconicError):
    """A data set, annotation file or image that cannot be used."""


class FormatError(LaconicError):
    """A model file or checkpoint that is damaged, unknown or hostile."""


class PruningError(LaconicError):
    """A pruning request that cannot be met on this model."""


class TrainingError(LaconicError):
    """A run that cannot start, resume or go on."""


class MissingError(LaconicError):
    """An optional package or program that is not installed."""
