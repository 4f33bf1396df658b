"""Benchmarks, `python -m benchmarks.NAME`. On CPUs their programs convolve as those of main.py do."""

from ovenet_jax.devices import environment

environment.convolve_by_eigen()
