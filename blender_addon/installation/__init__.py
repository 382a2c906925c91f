"""Installs the backend's own Python environment, and checks interpreters. Nothing here uses bpy.

PyTorch is never part of the extension and is never installed into Blender's Python. The modules, in the order in which
they are used:

gpu      which NVIDIA GPU the driver reports, and whether CUDA code can be compiled
plan     what an installation will do on this machine: commands, download and disk sizes, and the reasons
install  runs a plan in a thread, with progress, a log and cancellation
place    where the environment lies, and whether it is complete and up to date
check    whether any other interpreter can run the backend
"""
