"""Tracking: Capture → Track, by minimising one sum of energy terms over the parameters of a head model.

A walk through one clip, as `pipeline.track_captures` does it:

1. **Prepare.** The detector's landmarks, blendshape scores and the intrinsics guess come from the Capture. `model/`
   holds the unknowns and their projection: the `Camera`, the head model restricted to surface points
   (`landmark_surface`), the frames' parameters (`frame_state`, columns named in `parameter_layout`) and their
   projection with its Jacobian (`prediction`). `detector/` holds models of the detector's systematic errors.
2. **Fit the person.** `solve/fit_person.py` fits one identity and each clip's focal length to 48 frames of the training
   part, starting from `solve/initial_state.py`.
3. **Align to the skin** (unless only landmarks are wanted). `photometric_stage.py` estimates the skin's albedo and the
   clip's light, registers skin patches, and fits the person again, in four rounds from coarse to fine.
4. **Fit all frames.** `solve/fit_frames.py` minimises the sum of a list of terms, window by window: first landmarks,
   priors and smoothness. Then `observe/` measures silhouette, closed eyelids and lips, and irises near the head, and
   the frames are fitted again with these terms; with the skin patches, twice more.
5. **Assemble.** `solve/uncertainty.py` computes standard deviations. `after/` splits the head pose between body and
   neck, measures the landmark error and flags unreliable frames; it also cuts the head out of the person's matte, and
   draws the overlay and the report.

Several captures of synchronised, calibrated cameras (`rig.py`) have one set of frames' parameters, those in the first
camera. The terms of every other camera act on them through `terms/seen_from.py`; `clip_tracking.py` fits a single clip
and a rig alike.

`terms/` has one file per energy term, all with the interface of `terms/term.py`:

| term | compares | with |
|---|---|---|
| `landmarks` | the posed surface points | the detector's landmarks |
| `priors` | expression, jaw and eyes | the detector's blendshape scores and plausible values |
| `smoothness` | the second differences of the parameters over time | zero |
| `silhouette` | the outline of the head with its hair | the edge of the person's matte |
| `contact` | the gaps of closed eyelids and lips | zero |
| `iris` | the projected irises of the rig | those measured in the image |
| `skin_patches` | the brightness of the skin by the learned albedo and light | the image |
| `seen_from` | any of these in another camera of a rig | the same |

Imports run one way: pipeline → clip tracking → rig → photometric stage → solve → terms → observe → detector → model.
Training frames never depend on held-out frames, anywhere in this package.
"""
