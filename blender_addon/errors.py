"""The one exception of Blender's side: sentences that an artist can act on."""


class EffigyError(Exception):
    """What is wrong, where, and what to do, in one or two plain sentences.

    An operator turns it into a report. Anything that is not an `EffigyError` is a defect of ours and keeps its
    traceback.
    """
