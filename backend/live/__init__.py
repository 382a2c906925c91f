"""A face in front of a camera, frame by frame as it happens: `camera` → the detector → `one_euro` → `watch`."""
