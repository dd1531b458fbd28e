"""What a sweep would cost and could identify, said before a run is started.

Nothing is imported here, so that `arguments` (the arguments of the command line) costs nothing to load.
"""
