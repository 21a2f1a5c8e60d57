"""The one error a user causes and can mend."""


class UserError(Exception):
    """Bad input: a config key, a file, a size, a flag. The message is one line that says what to do.

    The command line prints it without a traceback and exits with `status` (2 for bad usage, 1 otherwise).
    """

    def __init__(self, message: str, *, status: int = 1):
        super().__init__(message)
        self.status = status
