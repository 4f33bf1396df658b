"""Devices: the mesh and how arrays are sharded over it, their memory, and environment variables for libraries."""
