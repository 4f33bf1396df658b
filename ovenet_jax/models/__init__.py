"""The networks: pure functions of arrays and parameters; no config (but for zoo.py), data set, mesh or loss."""
