"""The client of the backend's worker process.

`session` holds this Blender's client and delivers its answers from a timer. The other modules do not depend on Blender:
`client` (requests and jobs), `connection` (the process and its threads), `messages` (the protocol's messages as
dataclasses), `arrays` (arrays inside messages), `jobs` (the state of long work).
"""
