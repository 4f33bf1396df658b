"""What a run leaves behind and how it ends: folder, state, checkpoints, summaries, interruption, processes."""
