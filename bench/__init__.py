"""What is measured against what, as commands that print a table: `python -m bench.NAME`."""
