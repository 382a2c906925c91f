"""One Blender operator a file, named by its verb. Thin: check the context, call a function elsewhere, return a set."""
