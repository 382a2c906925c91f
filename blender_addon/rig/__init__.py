"""The rig: a head model and its track as Blender objects, and Blender's evaluated pose as the worker's `pose`.

`data` what the worker answers · `conventions` the border of axes · `build`, `armature`, `correctives`, `paint` the
objects · `marks` how a rig is known again · `camera` the footage's view · `action`, `performance` the track as
keyframes · `pose` what the worker is told · `sliders`, `presets` what an artist keys · `steps` long work without a
frozen window.
"""
