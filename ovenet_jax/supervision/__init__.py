"""Tasks (the classes of a data set, or their boundaries): labels, losses and metrics."""
