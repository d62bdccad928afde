"""The error a user can do something about."""


class UserError(Exception):
    """A mistake in the input, not in the program.

    Its message is one sentence: what is wrong, where (path or key), and what to do.
    The command line prints it as ``error: …`` and exits with status 2.
    """
