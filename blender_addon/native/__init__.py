"""Avatars as native splats: point clouds that Cycles and EEVEE draw themselves, from Blender 5.3 on.

    mesh_rays   hides the rig's mesh from renders, and shows it again
    radiance    an avatar's colours -> those of a point cloud; numpy alone
    light       what the scene's lamps and its world add to them; numpy alone but for reading the lamps
    frame       a rig's pose -> the splats of one frame, in the space of their object
    cloud       makes the object, and writes splats to it
    update      the handlers that keep it up to date
    usd         writes a range of frames to a USD file, which Blender plays without the extension
    disk        Bake to Disk: evaluates the range, writes the file and puts an object that plays it in place

Data flow. A handler gets a dependency graph: of the window after a change, of a render for each frame and, with motion
blur, for the times within the exposure. `rig.pose.read_pose` reads the pose from that graph, `player` evaluates the
avatar as the scene's camera sees it, `radiance` and `light` give the colours, and `cloud` writes the attributes of the
file's point cloud, from which Blender at once evaluates the graph's own copy again. A render from the window runs in a
thread beside it: there the graph's own copy is written, and only attributes that it has already.

The object is a child of the rig's mesh, so that its graph evaluates the rig even where the mesh is hidden. It has a
modifier that changes nothing and holds a clock: with it, Blender evaluates the copy anew in every frame, and looks for
motion within the exposure.
"""
