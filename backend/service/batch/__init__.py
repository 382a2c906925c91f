"""`python -m backend batch`: many clips, each from footage to an evaluated avatar, on this machine or on a cluster.

In the order in which a batch runs:

- `sheet`: the table that the user wrote; one row is one `Clip`. All of it is checked before anything starts.
- `stages`: what is done with a clip, in order: capture, track, train, evaluate.
- `stamps`: what a finished stage leaves behind, so that the next run of the batch does not do it again.
- `stage_run`: one stage of one clip, in a process of its own; the same function runs here and on a cluster's machines.
- `local`, `cluster`: who runs the stages. Both leave scheduling to others: `concurrent.futures` and Dask.distributed.
- `overview`: the one bar of a batch, with the time left.
- `run`: the batch itself, and the table at its end (`table`).
"""
