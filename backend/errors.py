"""The backend's exceptions, whose messages tell the user what to do."""


class EffigyError(Exception):
    """An error whose message says what is wrong, where, and what to do, in one or two plain sentences.

    The command line prints the message as one line on stderr and exits with code 2; an operator in Blender reports it.
    Any other exception is a bug and keeps its traceback.
    """


class Cancelled(EffigyError):
    """The user stopped a job. Its last checkpoint remains and can be resumed."""
