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


def os_error_sentence(error: OSError) -> str | None:
    """Return what a failed file operation means to a user, or None when it is a fault of ours."""
    file = error.filename2 or error.filename
    where = f" ({file})" if file else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to read or write{where}; choose another folder or change its rights."
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        return f"{error.strerror}{where}; a folder was given for a file, or the reverse."
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV):
        return f"{error.strerror}{where}; a file or folder is expected there."
    if error.errno in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EBUSY):
        return f"{error.strerror}{where}; the machine can't read or write it now, try again."
    if error.errno == errno.ENOENT:
        return f"no such file or folder{where}; check the path."
    return None
