"""The exception for errors that the artist can act on."""


class EffigyError(Exception):
    """The message says what is wrong, where, and what to do, in one or two sentences.

    Operators turn it into a report. Any other exception is a defect of the extension and keeps its traceback.
    """
