"""The errors a user can do something about."""

import errno


class UserError(Exception):
    """A mistake in the input, not in the program.

    Its message is one sentence: what is wrong, where (path or key), and what to do.
    The command line prints it as ``error: …`` and exits with status 2.
    """


class PartialFailure(Exception):
    """Some parts of a job failed and the rest is done.

    Its message lists them; the command line prints it as ``error: …`` and exits with status 1.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Return whether there was no memory left; torch says so in words of its own."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("can't allocate memory", "out of memory"))
    )


def is_disk_full(error: Exception) -> bool:
    """Return whether there was no room to write; libraries wrap the system's error in their own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    text = str(error)
    # safetensors passes the system's words on; torch.save says only that its writer failed.
    return any(
        words in text
        for words in ("No space left on device", "File too large", "file write failed")
    ) or ("inline_container" in text and "PytorchStreamWriter" in text)
