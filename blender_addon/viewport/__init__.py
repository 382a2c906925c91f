"""Live display of the avatars in Blender's 3D View.

    mesh_visibility, settings     whether the rig's mesh or the splats are shown, and how the splats are drawn
    viewpoint                     where a view looks from, which decides the colours
    splats                        the Gaussians of one pose as numpy arrays, and their layout for the GPU
    splats_request                the request to the worker for the splats of a pose
    avatar_state                  the state of each avatar and each view, kept between redraws
    cache, baking                 baked splats, and the task that bakes or exports a range of frames
    live                          at each redraw: reads the poses and requests new splats
    sorting, shaders              drawing order, GLSL
    shared_shaders                the built shaders, and why one could not be built
    splat_framebuffer, mesh, bones  drawing for any view
    fit_wire, landmarks           the mesh's wire and the film's landmarks over the film
    draw                          Blender's draw handlers

Data flow: dependency graph → `RigPose` → worker or bake → `Splats` → texture → `SplatFramebuffer` → 3D View.
Only `shaders`, `shared_shaders`, `splat_framebuffer`, `mesh`, `bones`, `landmarks` and `draw` use the `gpu` module;
`viewpoint`, `splats` and `sorting` do not use `bpy`.
"""
