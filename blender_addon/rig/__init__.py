"""The rig: a head model and its tracked performance as Blender objects, and the rig's evaluated pose for the worker.

data            the worker's description of a head model and of a track
open_head       the same description of the open head, which the extension carries
conventions     conversion between head space and Blender space
rotations       conversions between quaternions, matrices and axis-angle vectors
rig_properties  the custom properties by which a rig is recognised and read
build           the mesh with its shape keys; armature, correctives and paint make the other parts
camera          the footage's camera, with the footage behind it
action          keyframes in bulk, in every version of Blender
performance     the track as keyframes in NLA strips
fit             how well the track fits each frame of its film
takes           the performances in strips as channels; keys reads and replaces their keyframes
cleaning        curves simplified, smoothed, freed of spikes and blended, by curve_fit and curve_filters
reshaping       takes scaled, mirrored and offset with their keys; looping makes a loop of a range
life            blinks, eye movements and breathing as strips, drawn by life_motion
gaze_target     an empty that eyes, lids and head follow
face_angles     gaze, jaw and neck in degrees; joint_limits says how far they go
pose            the rig's evaluated pose, for the worker
sliders         expressions grouped by region; keying, resetting and mirroring them
presets         twelve starter expressions
steps           long work in short steps, so that Blender's window keeps responding
"""
