"""The avatar in the 3D View, live: the splats of the pose that the rig has now, among the scene's objects.

`settings` what an artist chooses · `live` from the evaluated scene to the splats to be shown, by way of the worker ·
`splats` those splats as arrays · `sorting` their order · `shaders` and `picture` the drawing, for any view ·
`draw` Blender's own 3D Views: when to draw, over what, and the mesh's wire.

Data runs one way: depsgraph -> pose -> worker (or a baked frame, see `live`) -> `Splats` -> texture -> picture -> view.
Only `shaders`, `picture` and `draw` know the `gpu` module; only `live`, `draw` and `settings` know `bpy`.
"""
