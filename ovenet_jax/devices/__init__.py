"""Devices: the mesh and how arrays are sharded over it, their memory, and the environment libraries read."""
