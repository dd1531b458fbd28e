"""Devices: this machine, the mesh, and the processes that train one run together."""
