"""The client of the backend's worker process.

`session` holds this Blender's client and delivers its answers from a timer. The other modules do not depend on Blender:
`client` (requests and jobs), `requests` (what it keeps about them), `connection` (the process and its threads),
`messages` (the protocol's messages as dataclasses, checked), `results` (what an answer must hold), `arrays` and
`array_folders` (arrays beside messages), `jobs` (the state of long work).

For a worker on another machine: `remote` (its client), `transfer` (what one request or job sends and fetches),
`path_fields` (which parameters are paths), `path_map` (shared folders), `file_sender`, `file_fetcher` and
`file_exchange` (the contents), `placing` (where fetched files go), `plain_names` (checked names).
"""
