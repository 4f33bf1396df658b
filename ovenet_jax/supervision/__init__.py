"""What a network learns, the classes of a data set or their boundaries: its labels, losses, measures and scores."""
