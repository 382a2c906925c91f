"""The colours of an avatar as a texture over its rig's UV map, and back: an artist paints on the texture, and the paint
becomes a change of the Gaussians' colours.

    surface  which Gaussians colour each texel, and how much
    paint    what was painted → the avatar's file with other colours
    images   textures as Blender's image files
    work     a rig's avatar → its textures; a painted texture → a painted copy of the avatar

The texture is linear in the Gaussians' colours: a texel is a weighted mean of those at its triangle's corners. What was
painted is spread over them by solving this for the colours (`paint.solved`). The change is added to the mean of the
avatar's blendshapes, so that it goes through all expressions, and viewport, render and web page show it alike. Only
`images` and `work` use `bpy`.
"""
