"""Evaluates avatars inside Blender's process, with numpy alone: no backend, no worker, no Blender.

    baked_file   reads the parts of an avatar's file that are needed
    deltas       what expressions and pose correctives add to the head's vertices
    head         poses the head's vertices and joints
    surface_turns  how the lips turn with the mesh around them
    conditions   what the blendshapes depend on: expression, joints and view, within the training's ranges
    evaluate     a pose and a viewpoint → splats in the world, as the worker's `avatar.splats` answers them
    players      the player of each rig's avatar, kept while its file is unchanged

Data flow. The rig gives, by `rig.pose.read_pose`, expression coefficients, joint rotations and the head's place, and
once by `deltas` its shape keys. The file gives everything else: the person's vertices and joints at rest, skinning
weights, features, mean, shapes and mixing network (`backend.avatar.baked`, `backend.avatar.blendshapes`).

An avatar that was trained as Gaussian blendshapes is evaluated exactly; tests/backend/test_player.py holds the result
against the backend's. One of graph U-Nets has no baked model; the worker evaluates it. Arrays are planar, (3, N) in
place of (N, 3), because numpy works on long rows several times as fast. Only `deltas` and `players` use `bpy`.
"""
