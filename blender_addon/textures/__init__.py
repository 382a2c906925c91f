"""Colours, opacity and offsets of an avatar as textures over its rig's UV map, and back: an artist paints on a texture,
and the paint becomes a change of the Gaussians.

    surface  which Gaussians show in each texel, and how much
    paint    what was painted → the avatar's file with other Gaussians
    images   textures as Blender's image files
    work     a rig's avatar → its textures; a painted texture → a painted copy of the avatar

A texture is linear in what the Gaussians have of its attribute: a texel is a weighted mean of those at its triangle's
corners. What was painted is spread over them by solving this for the Gaussians (`paint.solved`). The change is added to
the mean of the avatar's blendshapes, so that it goes through all expressions, and viewport, render and web page show it
alike. Only `images` and `work` use `bpy`.
"""
