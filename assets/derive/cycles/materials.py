"""Cycles materials of the demo's person: skin, teeth, tongue, eyes, hair and cloth. Runs in Blender's Python."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np


class Materials:
    """One material for each part, made of the maps and colours of the scene's arrays."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        skin_map = image("skin", arrays["skin_map"])
        gloss_map = image("gloss", arrays["gloss_map"], colour=False)
        self.of_head = (
            skin(skin_map, gloss_map),
            tooth(skin_map),
            wet("tongue", skin_map, roughness=0.28, bump=0.0006),
            wet("gums", skin_map, roughness=0.35, bump=0.0),
        )
        self.eye = eye(image("eye", arrays["eye_map"]), float(arrays["eye_radius"]))
        self.hair = hair("hair", melanin=0.86, redness=0.45, roughness=0.32, random=0.35)
        self.brows = hair("brows", melanin=0.88, redness=0.4, roughness=0.4, random=0.3)
        self.lashes = hair("lashes", melanin=1.0, redness=0.3, roughness=0.4, random=0.1)
        self.cloth = cloth(tuple(arrays["cloth"]))


class Nodes:
    """A material's nodes, added and linked in one call."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        if self.material.node_tree is None:
            self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.tree.nodes.clear()
        self.output = self.tree.nodes.new("ShaderNodeOutputMaterial")

    def add(self, kind: str, settings: dict[str, Any] | None = None, **inputs: Any) -> Any:
        """A node with properties `settings`; `inputs` are values or sockets, by the input's name with _ for spaces."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in (settings or {}).items():
            setattr(node, name, value)
        for name, value in inputs.items():
            socket = node.inputs[int(name[1:])] if name[1:].isdigit() else node.inputs[name.replace("_", " ")]
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            else:
                socket.default_value = value
        return node

    def attribute(self, name: str) -> Any:
        return self.add("Attribute", {"attribute_name": name}).outputs["Vector"]

    def finish(self, surface: Any) -> Any:
        self.tree.links.new(surface.outputs[0], self.output.inputs["Surface"])
        return self.material


def image(name: str, pixels: np.ndarray, colour: bool = True) -> Any:
    """(H, W, 3) uint8, the top row first."""
    height, width = pixels.shape[:2]
    made = bpy.data.images.new(name, width, height, alpha=False, float_buffer=False)
    made.colorspace_settings.name = "sRGB" if colour else "Non-Color"
    whole = np.ones((height, width, 4), np.float32)
    whole[..., :3] = pixels[::-1].astype(np.float32) / 255
    made.pixels.foreach_set(whole.ravel())
    made.pack()
    return made


def skin(skin_map: Any, gloss_map: Any) -> Any:
    nodes = Nodes("skin")
    colour = nodes.add("TexImage", {"image": skin_map, "interpolation": "Cubic"}).outputs["Color"]
    gloss = nodes.add("SeparateColor", Color=nodes.add("TexImage", {"image": gloss_map}).outputs["Color"])
    rest = nodes.attribute("rest")
    pores = nodes.add("TexVoronoi", {"feature": "F1"}, Vector=rest, Scale=950.0).outputs["Distance"]
    lines = nodes.add("TexNoise", Vector=rest, Scale=420.0, Detail=3.0, Roughness=0.6).outputs["Fac"]
    fine = nodes.add("Bump", Height=pores, Strength=0.28, Distance=0.00025).outputs["Normal"]
    normal = nodes.add("Bump", Height=lines, Strength=0.35, Distance=0.0006, Normal=fine).outputs["Normal"]
    # Light that comes out of the skin is blurred, so that its own normals are smoother than those of the reflection.
    soft = nodes.add("Bump", Height=lines, Strength=0.12, Distance=0.0006).outputs["Normal"]
    # Red of the gloss map is the roughness, green the strength of the reflection.
    shader = nodes.add(
        "BsdfPrincipled",
        {"subsurface_method": "RANDOM_WALK"},
        Base_Color=colour,
        Roughness=gloss.outputs["Red"],
        Specular_IOR_Level=gloss.outputs["Green"],
        Subsurface_Weight=0.2,
        Subsurface_Scale=0.006,
        Subsurface_Radius=(1.0, 0.34, 0.18),
        Subsurface_Anisotropy=0.0,
        Coat_Weight=0.16,
        Coat_Roughness=0.34,
        Normal=soft,
        Coat_Normal=normal,
    )
    return nodes.finish(shader)


def tooth(skin_map: Any) -> Any:
    nodes = Nodes("teeth")
    colour = nodes.add("TexImage", {"image": skin_map}).outputs["Color"]
    return nodes.finish(
        nodes.add(
            "BsdfPrincipled",
            Base_Color=colour,
            Roughness=0.22,
            Coat_Weight=0.5,
            Coat_Roughness=0.08,
        )
    )


def wet(name: str, skin_map: Any, roughness: float, bump: float) -> Any:
    nodes = Nodes(name)
    colour = nodes.add("TexImage", {"image": skin_map}).outputs["Color"]
    grain = nodes.add("TexNoise", Vector=nodes.attribute("rest"), Scale=900.0, Detail=2.0).outputs["Fac"]
    normal = nodes.add("Bump", Height=grain, Strength=0.4, Distance=bump).outputs["Normal"]
    return nodes.finish(
        nodes.add(
            "BsdfPrincipled", Base_Color=colour, Roughness=roughness, Coat_Weight=0.4, Coat_Roughness=0.1, Normal=normal
        )
    )


def eye(eye_map: Any, radius: float) -> Any:
    """Eyeball, iris hollow like a bowl, and the cornea's reflection as a coat with the cornea's own normals."""
    nodes = Nodes("eye")
    place = nodes.add("Mapping", Vector=nodes.attribute("place"), Scale=(0.5 / radius,) * 3, Location=(0.5, 0.5, 0.0))
    colour = nodes.add(
        "TexImage", {"image": eye_map, "extension": "EXTEND", "interpolation": "Cubic"}, Vector=place.outputs[0]
    ).outputs["Color"]

    def turned(name: str) -> Any:
        settings = {"vector_type": "NORMAL", "convert_from": "OBJECT", "convert_to": "WORLD"}
        return nodes.add("VectorTransform", settings, Vector=nodes.attribute(name)).outputs[0]

    shader = nodes.add(
        "BsdfPrincipled",
        Base_Color=colour,
        Roughness=0.6,
        Specular_IOR_Level=0.1,
        Subsurface_Weight=0.25,
        Subsurface_Scale=0.0015,
        Coat_Weight=1.0,
        Coat_Roughness=0.02,
        Coat_IOR=1.65,
        Normal=turned("bowl"),
        Coat_Normal=turned("cornea"),
    )
    return nodes.finish(shader)


def hair(name: str, melanin: float, redness: float, roughness: float, random: float) -> Any:
    nodes = Nodes(name)
    shader = nodes.add("BsdfHairPrincipled", {"model": "CHIANG", "parametrization": "MELANIN"})
    for key, value in (
        ("Melanin", melanin),
        ("Melanin Redness", redness),
        ("Roughness", roughness),
        ("Radial Roughness", 0.4),
        ("Random Color", random),
        ("Random Roughness", 0.2),
    ):
        shader.inputs[key].default_value = value
    return nodes.finish(shader)


def cloth(colour: tuple[float, ...]) -> Any:
    """A knitted wool: stitches and ribs from the attribute `weave` (around and down in metres, ribs by its z)."""
    nodes = Nodes("cloth")
    weave = nodes.attribute("weave")
    fuzz = nodes.add("TexNoise", Vector=weave, Scale=900.0, Detail=3.0).outputs["Fac"]
    tone = nodes.add("TexNoise", Vector=weave, Scale=22.0, Detail=2.0).outputs["Fac"]
    stitch = nodes.add(
        "TexWave", {"wave_type": "BANDS", "bands_direction": "X"}, Vector=weave, Scale=95.0, Distortion=1.0, Detail=1.0
    ).outputs["Fac"]
    rows = nodes.add(
        "TexWave", {"wave_type": "BANDS", "bands_direction": "Y"}, Vector=weave, Scale=70.0, Distortion=1.5, Detail=1.0
    ).outputs["Fac"]
    knit = nodes.add("Math", {"operation": "MULTIPLY"}, _0=stitch, _1=rows).outputs[0]
    height = nodes.add("Math", {"operation": "MULTIPLY_ADD"}, _0=fuzz, _1=0.5, _2=knit).outputs[0]
    normal = nodes.add("Bump", Height=height, Strength=0.35, Distance=0.0005).outputs["Normal"]
    base = nodes.add(
        "MixRGB",
        {"blend_type": "MULTIPLY"},
        Fac=0.5,
        Color1=(*colour, 1.0),
        Color2=nodes.add("ValToRGB", Fac=tone).outputs["Color"],
    ).outputs["Color"]
    return nodes.finish(
        nodes.add(
            "BsdfPrincipled",
            Base_Color=base,
            Roughness=0.9,
            Specular_IOR_Level=0.2,
            Sheen_Weight=0.12,
            Sheen_Roughness=0.4,
            Normal=normal,
        )
    )
