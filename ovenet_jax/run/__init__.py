"""Run management: folder, state, checkpoints, summaries, interruption, processes."""
