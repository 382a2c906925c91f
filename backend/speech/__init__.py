"""Lip sync: from a sound to the curves of a mouth that speaks it.

`sound` decodes a file. `recogniser` finds the phones in it, with their times, and `closures` hears where lips touch; or
`phone_tables` reads the phones from a file of another program. `visemes` says which shape the mouth has for each phone,
as values of ARKit's channels. `articulation` makes curves of them: neighbouring shapes blend (coarticulation), lips
meet where a phone needs it, and loud vowels open the jaw wider.
"""
