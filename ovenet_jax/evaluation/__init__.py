"""From images to scores: the test protocol, metrics, refinement, reports and their pictures."""
