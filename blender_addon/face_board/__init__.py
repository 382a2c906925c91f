"""The face board: bones on and beside the face whose places add to the rig's sliders.

layout   which handles there are, and which sliders each direction moves
places   where the handles lie on a head
shapes   the wire meshes by which Blender shows them
build    adds them to a rig, and removes them
values   places of handles <-> values of sliders
own_expressions  a face in a head's own coefficients as ARKit's sliders
keys     a performance taken from the sliders to the handles and back
"""
