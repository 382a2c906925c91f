"""What build.py is made of: the environments that it sets up, and the extension that it packs. Standard library
only.
"""
