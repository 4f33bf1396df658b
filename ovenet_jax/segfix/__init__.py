"""SegFix around its network: ground truth from label maps, offset files, refining any tool's maps; imports no jax."""
