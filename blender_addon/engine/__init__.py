"""The render engine “Effigy”: F12 and animations of avatars through Blender's own cameras and output settings.

`render_engine` what Blender calls · `subjects` who is in the picture · `camera` through which lens · `waiting` the
worker's picture, until it is there or the artist stops · `color` from the networks' colours to Blender's ·
`avatar_pass` and `depth_composite` avatars over a scene of another engine · `panels` the settings.
"""
