"""The render engine “Effigy”: renders avatars with Blender's own cameras and output settings.

render_engine          what Blender calls to render
subjects               the avatars in the image, with their poses
camera                 Blender's camera in the worker's form
played_frame           the image of avatars that Blender plays by itself
egl                    whether there is a graphics context for that in the background
rendered_frame         an image before it gets Blender's colours
cancellable_call       waits for the worker's image until the artist cancels
engine_name            its identifier
output_room            whether the disk has room for the next frame
color                  from the networks' colours to Blender's
avatar_pass, depth_composite   avatars in a scene that another engine renders
shown                  whether an image of another engine has the avatars in it, and the message where it has not
warm_up                prepares the worker before the first render
unsupported            scene settings that have no effect on avatars
panels                 the settings
"""
