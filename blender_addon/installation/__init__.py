"""Installs the backend's own Python environment, and checks interpreters. Nothing here uses bpy.

PyTorch is never part of the extension and is never installed into Blender's Python. The modules, in the order in which
they are used:

gpu       which NVIDIA GPU the driver reports, and whether CUDA code can be compiled
machine   what an installation depends on, and which machines are supported
figures   the sizes of the package lists, measured beforehand
plan      what an installation will do on this machine: commands, download and disk sizes, and the reasons
install   runs a plan in a thread, with progress, a log and cancellation
failures  explains a failed step
place     where the environments lie, which one is used, and which can be removed
check     whether any other interpreter can run the backend

`run_module` is run by the Python of an environment, not by Blender's process.
"""
