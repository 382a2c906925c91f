"""A performer's face drives the active rig while it moves: Live.

    webcam (the worker's job `live`)  ┐
    Live Link Face (UDP)              ├→ Face → its change from the performer's neutral face → sliders and bones → take
    VMC, or any OSC with ARKit's names┘

`face` says what a face is. `live_link` and `vmc` (over `osc`) read packets that `receiver` has got from the network,
`webcam` reads the worker's job. `calibration` takes the performer's neutral face from the first faces, `puppet` moves
the rig by what changes from it, and `take` keeps what the rig has shown for keyframes. `session` holds all of that
together, and a timer calls it. A rig that is not recorded is afterwards as it was before.
"""
