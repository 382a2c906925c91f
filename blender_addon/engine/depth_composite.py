"""The depth composite: nodes that put the avatar pass before and behind what the artist's engine has rendered.

Where the avatar is nearer it lies over the scene, else the scene lies over it: Blender's Depth Combine, built of Alpha
Over so that hair keeps its colour (Depth Combine multiplies by alpha what is multiplied already). At the edge of an
object before an avatar the scene's picture already holds a mix of that object and of what is behind it: with a
transparent film the avatar shows through there, without it such an edge keeps up to a pixel of the scene's background.
"""

from __future__ import annotations

from typing import Any, Final

import bpy

MARK: Final = "effigy_depth_composite"
"""On the node group, so that it is known again under any name."""
IMAGE: Final = "NodeSocketColor"
VALUE: Final = "NodeSocketFloat"
SOCKETS: Final = (("Image", IMAGE), ("Depth", VALUE), ("Avatars", IMAGE), ("Avatar Depth", VALUE))
_WIDTH: Final = 220


def set_up(scene: bpy.types.Scene, layer: bpy.types.ViewLayer, avatars: bpy.types.Scene) -> None:
    """Put the avatar pass into a scene's compositor, right after the scene's own picture: all that the artist does with
    that picture later is done with both. Where it is there already, its nodes are set right again.
    """
    scene.render.use_compositing = True
    layer.use_pass_z = True
    tree = _compositor(scene)
    nodes = tree.nodes
    source = _picture_of(nodes, scene, layer.name)
    groups = (node for node in nodes if node.type == "GROUP" and node.node_tree is not None)
    composite = next((node for node in groups if node.node_tree.get(MARK)), None)
    second = _picture_of(nodes, avatars, avatars.view_layers[0].name)
    image = source.outputs["Image"]
    if composite is None:
        readers = [link.to_socket for link in image.links]
        for node in nodes:
            if node.location.x > source.location.x:
                node.location.x += _WIDTH + 80
        composite = nodes.new("CompositorNodeGroup")
        composite.node_tree, composite.label, composite.width = _group(), "Avatars by Depth", _WIDTH
        composite.location = source.location.x + source.width + 80, source.location.y
        second.location = source.location.x, source.location.y - 420
        for reader in readers or _open_ends(tree):
            tree.links.new(composite.outputs["Image"], reader)
    pictures = image, source.outputs["Depth"], second.outputs["Image"], second.outputs["Depth"]
    for (name, _), output in zip(SOCKETS, pictures, strict=False):
        tree.links.new(output, composite.inputs[name])


def _compositor(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """The scene's compositing nodes, in the way of Blender 5 or of earlier ones; made where there are none."""
    if not hasattr(scene, "compositing_node_group"):
        scene.use_nodes = True
        return scene.node_tree
    if scene.compositing_node_group is None:
        tree = bpy.data.node_groups.new(f"{scene.name} Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type=IMAGE)
        tree.nodes.new("NodeGroupOutput").location = 300, 0
        scene.compositing_node_group = tree
    return scene.compositing_node_group


def _picture_of(nodes: Any, scene: bpy.types.Scene, layer: str) -> bpy.types.Node:
    """The Render Layers node of a scene's view layer; made if there is none."""
    found = [node for node in nodes if node.type == "R_LAYERS" and node.scene == scene and not node.mute]
    made = next((node for node in found if node.layer == layer), None)
    if made is None:
        made = nodes.new("CompositorNodeRLayers")
        made.scene, made.layer = scene, layer
    return made


def _open_ends(tree: bpy.types.NodeTree) -> list[bpy.types.NodeSocket]:
    """Where a picture leaves the compositor: its outputs' first sockets, if nothing goes there yet."""
    ends = [node for node in tree.nodes if node.type in {"COMPOSITE", "GROUP_OUTPUT"}]
    if not ends:
        ends = [
            tree.nodes.new(
                "NodeGroupOutput" if hasattr(bpy.types.Scene, "compositing_node_group") else "CompositorNodeComposite"
            )
        ]
    return [node.inputs[0] for node in ends if not node.inputs[0].is_linked]


def _group() -> bpy.types.NodeTree:
    made = next((tree for tree in bpy.data.node_groups if tree.get(MARK) and tree.library is None), None)
    if made is not None:
        return made
    tree = bpy.data.node_groups.new("Avatars by Depth", "CompositorNodeTree")
    tree[MARK] = 1
    for name, kind in SOCKETS:
        tree.interface.new_socket(name, in_out="INPUT", socket_type=kind)
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type=IMAGE)
    given = _add(tree, "NodeGroupInput", -600).outputs
    # 1 where the avatar is nearer than the scene, with the steps of that edge smoothed.
    nearer = _math(tree, "LESS_THAN", -400, given["Avatar Depth"], given["Depth"])
    smooth = _add(tree, "CompositorNodeAntiAliasing", -200)
    tree.links.new(nearer, smooth.inputs["Image"])
    before = smooth.outputs["Image"]
    behind = _math(tree, "SUBTRACT", 0, 1.0, before)
    under = _over(tree, 200, None, given["Avatars"], behind)
    scene = _over(tree, 400, under, given["Image"], None)
    final = _over(tree, 600, scene, given["Avatars"], before)
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


def _over(tree: bpy.types.NodeTree, x: float, below: Any, above: Any, share: Any) -> bpy.types.NodeSocket:
    """`share` of `above` (premultiplied) over `below`, or over nothing."""
    node = _add(tree, "CompositorNodeAlphaOver", x)
    # Their names and order changed over the versions, the order of the pictures did not.
    background, foreground = (socket for socket in node.inputs if socket.type == "RGBA")
    factor = next(socket for socket in node.inputs if socket.identifier == "Fac")
    factor.default_value = 1.0
    if below is None:
        background.default_value = (0, 0, 0, 0)
    else:
        tree.links.new(below, background)
    tree.links.new(above, foreground)
    if share is not None:
        tree.links.new(share, factor)
    return node.outputs[0]
