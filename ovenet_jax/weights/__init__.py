"""Published weights in: files, names, and what a network takes over before training."""
