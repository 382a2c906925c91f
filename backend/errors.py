"""The one exception family of the backend: sentences that a person can act on."""


class EffigyError(Exception):
    """What is wrong, where, and what to do, in one or two plain sentences.

    The command line prints it as one line on stderr and exits with code 2; an operator in Blender turns it
    into a report. Anything that is not an `EffigyError` is a defect of ours and keeps its traceback.
    """


class Cancelled(EffigyError):
    """The user stopped a job. What it had checkpointed stays and can be resumed."""
