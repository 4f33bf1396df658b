"""Training: optimizer, the step, run monitoring and the reporter."""
