"""The base of the errors that every command prints in one line."""


class CommandError(Exception):
    """An expected error, whose message is one line that names the fix; `code` is the exit code of a command.

    1 is a failure and 2 is wrong use.
    """

    code = 1
