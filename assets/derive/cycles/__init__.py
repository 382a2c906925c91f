"""The part of the demo clip's derivation that runs in Blender's Python: the scene, rendered with Cycles."""
