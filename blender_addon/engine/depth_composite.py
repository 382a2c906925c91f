"""The depth composite: compositor nodes that combine the avatar pass with the artist's scene by depth.

Where the avatar is nearer it is composited over the scene, elsewhere the scene over the avatar. This is what Blender's
Depth Combine does, but built from Alpha Over nodes so that hair keeps its colour: Depth Combine multiplies
premultiplied colours by alpha once more. At the edge of an object in front of an avatar, the scene's image is already a
mixture of that object and of what is behind it. With a transparent film the avatar shows through there; without it,
such an edge keeps up to one pixel of the scene's background.
"""

from __future__ import annotations

from typing import Any, Final, cast

import bpy

GROUP_PROPERTY: Final = "effigy_depth_composite"
"""Custom property of the node group, which identifies it under any name."""
IMAGE: Final = "NodeSocketColor"
VALUE: Final = "NodeSocketFloat"
SOCKETS: Final = (("Image", IMAGE), ("Depth", VALUE), ("Avatars", IMAGE), ("Avatar Depth", VALUE))
_WIDTH: Final = 220


def set_up(scene: bpy.types.Scene, layer: bpy.types.ViewLayer, avatars: bpy.types.Scene) -> None:
    """Adds the avatar pass to a scene's compositor, directly after the scene's own image, so that all of the artist's
    nodes apply to both. If it has been added before, its nodes are repaired.
    """
    scene.render.use_compositing = True
    layer.use_pass_z = True
    tree = _compositor(scene)
    nodes = tree.nodes
    source = _render_layers_node(nodes, scene, layer.name)
    groups = (node for node in nodes if node.type == "GROUP" and node.node_tree is not None)
    composite = next((node for node in groups if node.node_tree.get(GROUP_PROPERTY)), None)
    second = _render_layers_node(nodes, avatars, avatars.view_layers[0].name)
    image = _scene_image(scene, nodes, source)
    if composite is None:
        readers = [link.to_socket for link in image.links]
        for node in nodes:
            if node.location.x > source.location.x:
                node.location.x += _WIDTH + 80
        composite = nodes.new("CompositorNodeGroup")
        composite.node_tree, composite.label, composite.width = _group(), "Avatars by Depth", _WIDTH
        composite.location = source.location.x + source.width + 80, source.location.y
        second.location = source.location.x, source.location.y - 420
        for reader in readers or _unlinked_outputs(tree):
            tree.links.new(composite.outputs["Image"], reader)
    outputs = image, source.outputs["Depth"], second.outputs["Image"], second.outputs["Depth"]
    for (name, _), output in zip(SOCKETS, outputs, strict=False):
        tree.links.new(output, composite.inputs[name])


def is_composited(scene: bpy.types.Scene) -> bool:
    """Whether a render of the scene runs its compositor now."""
    if not scene.render.use_compositing:
        return False
    new = hasattr(scene, "compositor_effects") or hasattr(scene, "compositing_node_group")
    return new or scene.use_nodes


def find_composite(scene: bpy.types.Scene) -> bpy.types.Node | None:
    """The node that combines the avatars with the scene in a scene's compositor; None if there is none."""
    nodes = (node for tree in _compositors(scene) for node in tree.nodes if node.type == "GROUP")
    return next((node for node in nodes if node.node_tree is not None and node.node_tree.get(GROUP_PROPERTY)), None)


def reads(composite: bpy.types.Node, avatars: bpy.types.Scene) -> bool:
    """Whether the node receives the images of the scene `avatars`, and its own are used."""
    links = composite.inputs["Avatars"].links
    source = links[0].from_node if links else None
    uses = source is not None and not composite.mute and composite.outputs["Image"].is_linked
    return uses and source.type == "R_LAYERS" and source.scene == avatars and not source.mute


def _compositors(scene: bpy.types.Scene) -> list[bpy.types.NodeTree]:
    """The existing compositing node trees that a render of the scene may run."""
    if hasattr(scene, "compositor_effects"):
        effects = cast("Any", scene).compositor_effects
        return [effect.node_group for effect in effects if effect.enable_for_render and effect.node_group is not None]
    tree = getattr(scene, "compositing_node_group" if hasattr(scene, "compositing_node_group") else "node_tree")
    return [] if tree is None else [tree]


def written_folders(scene: bpy.types.Scene) -> list[str]:
    """Where the File Output nodes of a scene's compositor write whenever it renders, as they name it."""
    tree = _compositor(scene)
    nodes = [node for node in tree.nodes if node.type == "OUTPUT_FILE" and not node.mute]
    # Blender 5 calls the folder `directory`.
    return list(dict.fromkeys(str(getattr(node, "directory", getattr(node, "base_path", ""))) for node in nodes))


def _compositor(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """The scene's compositing node tree, created if there is none. Its place differs between Blender 5.3, 5.0 and
    earlier versions.
    """
    if hasattr(scene, "compositor_effects"):
        effect = _first_effect(scene)
        if effect.node_group is None:
            effect.node_group = _new_compositor(scene)
        return effect.node_group
    if not hasattr(scene, "compositing_node_group"):
        scene.use_nodes = True
        return scene.node_tree
    if scene.compositing_node_group is None:
        scene.compositing_node_group = _new_compositor(scene)
    return scene.compositing_node_group


def _first_effect(scene: bpy.types.Scene) -> Any:
    """The compositor effect that Blender 5.3 applies first in a render. The effects after it receive its result.

    One is created where there is none, and before the first where that one's nodes are linked from another file, as
    those of Blender's own assets are: changes of them would be lost.
    """
    effects = cast("Any", scene).compositor_effects
    rendered = [effect for effect in effects if effect.enable_for_render]
    first = next(iter([effect for effect in rendered if effect.node_group is not None] or rendered), None)
    if first is None:
        return effects.new(name="Scene Effect")
    if first.node_group is None or first.node_group.is_editable:
        return first
    index, name = list(effects).index(first), effects.new(name="Avatars").name
    with bpy.context.temp_override(scene=scene):
        bpy.ops.scene.move_compositor_effect_to_index(name=name, index=index)
    return effects[name]


def _new_compositor(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    tree = bpy.data.node_groups.new(f"{scene.name} Compositing", "CompositorNodeTree")
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type=IMAGE)
    tree.nodes.new("NodeGroupOutput").location = 300, 0
    return tree


def _scene_image(scene: bpy.types.Scene, nodes: Any, source: bpy.types.Node) -> bpy.types.NodeSocket:
    """The socket from which the artist's nodes read the scene's image: that of the Render Layers node `source`, or in
    an effect of Blender 5.3 that of the group's input.
    """
    image = source.outputs["Image"]
    if image.is_linked or not hasattr(scene, "compositor_effects"):
        return image
    inputs = (node.outputs[0] for node in nodes if node.type == "GROUP_INPUT")
    return next((socket for socket in inputs if socket.type == "RGBA" and socket.is_linked), image)


def _render_layers_node(nodes: Any, scene: bpy.types.Scene, layer: str) -> bpy.types.Node:
    """The Render Layers node of a scene's view layer, created if there is none."""
    found = [node for node in nodes if node.type == "R_LAYERS" and node.scene == scene and not node.mute]
    made = next((node for node in found if node.layer == layer), None)
    if made is None:
        made = nodes.new("CompositorNodeRLayers")
        made.scene, made.layer = scene, layer
    return made


def _unlinked_outputs(tree: bpy.types.NodeTree) -> list[bpy.types.NodeSocket]:
    """The first sockets of the compositor's output nodes, if nothing is linked to them."""
    ends = [node for node in tree.nodes if node.type in {"COMPOSITE", "GROUP_OUTPUT"}]
    if not ends:
        ends = [tree.nodes.new("NodeGroupOutput" if bpy.app.version >= (5, 0, 0) else "CompositorNodeComposite")]
    return [node.inputs[0] for node in ends if not node.inputs[0].is_linked]


def _group() -> bpy.types.NodeTree:
    """The node group that combines two images by depth, created if the file has none."""
    made = next((tree for tree in bpy.data.node_groups if tree.get(GROUP_PROPERTY) and tree.library is None), None)
    if made is not None:
        return made
    tree = bpy.data.node_groups.new("Avatars by Depth", "CompositorNodeTree")
    tree[GROUP_PROPERTY] = 1
    for name, kind in SOCKETS:
        tree.interface.new_socket(name, in_out="INPUT", socket_type=kind)
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type=IMAGE)
    inputs = _add(tree, "NodeGroupInput", -600).outputs
    # 1 where the avatar is nearer than the scene, with an anti-aliased edge.
    nearer = _math(tree, "LESS_THAN", -400, inputs["Avatar Depth"], inputs["Depth"])
    smooth = _add(tree, "CompositorNodeAntiAliasing", -200)
    tree.links.new(nearer, smooth.inputs["Image"])
    in_front = smooth.outputs["Image"]
    behind = _math(tree, "SUBTRACT", 0, 1.0, in_front)
    under = _over(tree, 200, None, inputs["Avatars"], behind)
    scene = _over(tree, 400, under, inputs["Image"], None)
    final = _over(tree, 600, scene, inputs["Avatars"], in_front)
    tree.links.new(final, _add(tree, "NodeGroupOutput", 800).inputs["Image"])
    return tree


def _add(tree: bpy.types.NodeTree, kind: str, x: float) -> bpy.types.Node:
    node = tree.nodes.new(kind)
    node.location = x, 0
    return node


def _math(tree: bpy.types.NodeTree, operation: str, x: float, *operands: Any) -> bpy.types.NodeSocket:
    # Blender 5 has one Math node for all kinds of trees.
    node = _add(tree, "ShaderNodeMath" if bpy.app.version >= (5, 0, 0) else "CompositorNodeMath", x)
    node.operation = operation
    for socket, operand in zip(node.inputs, operands, strict=False):
        if isinstance(operand, float):
            socket.default_value = operand
        else:
            tree.links.new(operand, socket)
    return node.outputs[0]


def _over(tree: bpy.types.NodeTree, x: float, below: Any, above: Any, factor: Any) -> bpy.types.NodeSocket:
    """Alpha Over with `factor` of `above` (premultiplied) over `below`; `below` None: transparent."""
    node = _add(tree, "CompositorNodeAlphaOver", x)
    # The sockets' names and order differ between versions, but not the order of the two images.
    background, foreground = (socket for socket in node.inputs if socket.type == "RGBA")
    factor_socket = next(socket for socket in node.inputs if socket.identifier == "Fac")
    factor_socket.default_value = 1.0
    if below is None:
        background.default_value = (0, 0, 0, 0)
    else:
        tree.links.new(below, background)
    tree.links.new(above, foreground)
    if factor is not None:
        tree.links.new(factor, factor_socket)
    return node.outputs[0]
