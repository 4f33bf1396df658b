"""The networks: pure functions of arrays and parameters, without data set, mesh or loss. Only zoo.py reads configs."""
