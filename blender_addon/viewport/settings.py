"""The artist's settings for the viewport: per avatar, stored on its armature, and per scene."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, PointerProperty

from ..properties import OWN_IN_OVERRIDE
from ..redraw import redraw_views
from .mesh_visibility import show_all

MODES = (
    ("SPLATS", "Splats", "The avatar as it is rendered"),
    ("MESH", "Mesh", "Only the rig's mesh"),
    ("BOTH", "Splats and Wire", "The avatar with the mesh's wireframe over it"),
    ("ELLIPSOIDS", "Ellipsoids", "Each Gaussian as a solid ellipsoid of one standard deviation"),
    ("POINTS", "Points", "Each Gaussian as a point"),
    ("DEPTH", "Depth", "The avatar's distance from the view: near parts are light"),
)
FILM_MODES = (
    ("SOLID", "Solid", "The mesh hides the film behind it"),
    ("WIRE", "Wire", "Only the lines of the side that faces the view, so that the film is seen through the mesh"),
)
QUALITIES = (
    (
        "AUTO",
        "Automatic",
        "All Gaussians. Where Blender draws without a graphics card, at half the resolution while the view "
        "or the pose changes",
    ),
    ("FULL", "Everything", "All Gaussians at full resolution, always"),
    (
        "ANCHORS",
        "Fast while Moving",
        "While a pose changes, only the Gaussians of the mesh's vertices, which are computed faster, at half the "
        "resolution; all Gaussians at full resolution once it is still",
    ),
)


def _redraw(self: bpy.types.PropertyGroup, context: bpy.types.Context) -> None:
    redraw_views()


class EffigyView(bpy.types.PropertyGroup):
    """`Object.effigy_view`, used on the armature of a rig: how its avatar is shown in all 3D Views."""

    mode: EnumProperty(
        name="Show",
        items=MODES,
        default="SPLATS",
        update=_redraw,
        description="What the 3D View shows of the avatar",
        override=OWN_IN_OVERRIDE,
    )
    scale: FloatProperty(
        name="Splat Size",
        default=1.0,
        min=0.01,
        max=3.0,
        soft_max=1.0,
        subtype="FACTOR",
        update=_redraw,
        description="Draw the Gaussians smaller or larger than they are, to see how they are arranged",
        override=OWN_IN_OVERRIDE,
    )
    least_opacity: FloatProperty(
        name="Least Opacity",
        default=0.0,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
        update=_redraw,
        description="Do not draw the Gaussians whose opacity is lower than this",
        override=OWN_IN_OVERRIDE,
    )
    landmarks: BoolProperty(
        name="Landmarks",
        default=False,
        update=_redraw,
        description="Draw the landmarks that were found in the film over it, in the view through the film's camera",
        override=OWN_IN_OVERRIDE,
    )
    over_film: EnumProperty(
        name="Mesh",
        items=FILM_MODES,
        default="SOLID",
        update=_redraw,
        description="How the 3D View shows the mesh while it shows no avatar",
        override=OWN_IN_OVERRIDE,
    )
    seen_through: BoolProperty(
        options={"HIDDEN"}, description="Whether the mesh has been made transparent for its wire"
    )
    cleared: BoolProperty(options={"HIDDEN"}, description="Whether the mesh has been made transparent for the splats")


class EffigySceneView(bpy.types.PropertyGroup):
    """`Scene.effigy_view`: what is computed while a pose changes and afterwards, and whether avatars are hidden with
    the overlays.
    """

    quality: EnumProperty(
        name="Quality",
        items=QUALITIES,
        default="AUTO",
        update=_redraw,
        description="What is computed while a pose changes",
    )
    with_overlays: BoolProperty(
        name="Hide with Overlays",
        default=True,
        update=_redraw,
        description="Hide the avatars when the 3D View's overlays are switched off",
    )
    networks: BoolProperty(
        name="Networks when Still",
        default=False,
        update=_redraw,
        description="Replace a bake, once pose and view are still, by what its networks compute. They need the backend "
        "and the file from which the avatar was baked, beside that of the bake",
    )


classes = (EffigyView, EffigySceneView)


def register() -> None:
    bpy.types.Object.effigy_view = PointerProperty(type=EffigyView, override=OWN_IN_OVERRIDE)
    bpy.types.Scene.effigy_view = PointerProperty(type=EffigySceneView)


def unregister() -> None:
    # Blender gives extensions no access to its data while it starts or quits; then nothing has to be restored.
    if hasattr(bpy.data, "objects"):
        show_all()
    for owner in (bpy.types.Object, bpy.types.Scene):
        if hasattr(owner, "effigy_view"):
            del owner.effigy_view
