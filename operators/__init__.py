"""Blender's operators, one in each file, named by its verb.

Operators are thin: they check the context, call a function elsewhere, and report the result.
"""
