"""The rows of `bench.faults`, one module each; a module whose name starts with an underscore is shared by rows.

A row has the constants TITLE and ASKED (the first two columns of the table), FULL and SHORT (how many tries the bench
and the tests make), NEEDS_BLENDER if it runs under `.venv-blender`, and a function

    run(place: Place, seed: int, count: int) -> Outcome

A function `prepare()`, if it has one, is called before a whole campaign, outside of the sandbox: it may install what
the row needs.

It may be imported under either environment, so it imports bpy and the backend's packages inside functions. It prints to
stderr only.
"""
