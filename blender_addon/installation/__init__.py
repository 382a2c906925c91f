"""The backend's own Python: found, made, checked. Nothing here knows of Blender; a thread and child processes do the
work.

PyTorch is never part of the extension, and never installed into Blender's Python: `plan` says what an installation will
do and cost, `install` does it into a folder of the user's, `check` looks at any interpreter, and `place` knows where
things lie."""
