"""The parts of build.py: virtual environments, the packed extension, code checks, and scripts that run in Blender.

What build.py itself imports needs only the standard library.
"""
