"""The client of the worker: `client`, `connection`, `arrays` and `jobs` know nothing of Blender, `session` does."""
