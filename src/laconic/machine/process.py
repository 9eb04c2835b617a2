"""How a process that trains uses its machine: threads and memory. For programs, not for the library's functions."""

from laconic.errors import ConfigError
from laconic.machine.cores import cores
from laconic.machine.memory import keep_memory


def settle_in(threads: int = 0) -> None:
    """Sets PyTorch's number of threads as `bound_threads`, and makes the process keep the memory it frees."""
    bound_threads(threads)
    keep_memory()


def bound_threads(threads: int = 0) -> None:
    """Sets PyTorch's number of threads, 0 for its own choice, which the environment may have made.

    There are never more threads than `cores`: they would only wait for each other, and thousands bring the machine
    down or the process to its end. ConfigError for fewer than none.
    """
    import torch

    if threads < 0:
        raise ConfigError(f"threads = {threads}; give 0 for all, or at least 1")
    wanted = min(threads or torch.get_num_threads(), cores())
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)


def slow_in_bfloat16() -> bool:
    """Whether this processor has no instructions for bfloat16, and PyTorch's products in it are many times slower."""
    import torch

    try:
        return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False
