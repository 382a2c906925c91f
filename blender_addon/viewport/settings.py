"""What an artist chooses of the viewport: how each avatar is shown (on its armature), and for the whole scene."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, PointerProperty

from ..redraw import redraw_views
from .mesh_visibility import undress_all

MODES = (
    ("SPLATS", "Splats", "The avatar as it is rendered"),
    ("MESH", "Mesh", "The rig's mesh alone"),
    ("BOTH", "Splats and Wire", "The avatar, with the mesh's wire over it"),
    ("ELLIPSOIDS", "Ellipsoids", "Each Gaussian as a solid body of one standard deviation"),
    ("POINTS", "Points", "Each Gaussian as a point"),
    ("DEPTH", "Depth", "The avatar's distance from the view: near is light"),
)
QUALITIES = (
    (
        "AUTO",
        "Automatic",
        "Everything; where Blender draws without a graphics card, at half the resolution while the view "
        "or the pose changes",
    ),
    ("FULL", "Everything", "All Gaussians at full resolution, always"),
    (
        "ANCHORS",
        "Anchors while Moving",
        "While a pose changes only the Gaussians of the mesh's vertices, which are there "
        "sooner; everything once it stands still",
    ),
)


def _changed(self: bpy.types.PropertyGroup, context: bpy.types.Context) -> None:
    redraw_views()


class EffigyView(bpy.types.PropertyGroup):
    """On the armature of a rig."""

    mode: EnumProperty(
        name="Show", items=MODES, default="SPLATS", update=_changed, description="What the 3D View shows of the avatar"
    )
    scale: FloatProperty(
        name="Splat Size",
        default=1.0,
        min=0.01,
        max=3.0,
        soft_max=1.0,
        subtype="FACTOR",
        update=_changed,
        description="Draw the Gaussians smaller than they are, to see how they lie",
    )
    least_opacity: FloatProperty(
        name="Least Opacity",
        default=0.0,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
        update=_changed,
        description="Leave out the Gaussians that are fainter than this",
    )
    cleared: BoolProperty(options={"HIDDEN"}, description="Whether the mesh has been made clear for the splats' sake")


class EffigySceneView(bpy.types.PropertyGroup):
    """On a scene."""

    quality: EnumProperty(
        name="Quality",
        items=QUALITIES,
        default="AUTO",
        update=_changed,
        description="What is computed while a pose changes",
    )
    with_overlays: BoolProperty(
        name="Hide with Overlays",
        default=True,
        update=_changed,
        description="Switching the 3D View's overlays off hides the avatars too",
    )


classes = (EffigyView, EffigySceneView)


def register() -> None:
    bpy.types.Object.effigy_view = PointerProperty(type=EffigyView)
    bpy.types.Scene.effigy_view = PointerProperty(type=EffigySceneView)


def unregister() -> None:
    # Blender hides its data from extensions while it starts, and while it ends nobody looks.
    if hasattr(bpy.data, "objects"):
        undress_all()
    for owner in (bpy.types.Object, bpy.types.Scene):
        if hasattr(owner, "effigy_view"):
            del owner.effigy_view
