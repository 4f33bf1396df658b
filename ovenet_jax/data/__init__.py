"""From official directory trees to batches of uint8 arrays; imports neither jax, flax nor TensorFlow."""
