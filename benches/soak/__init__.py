"""A cluster for hours under a steady load and faults, and a verdict on what grew: `make soak`."""
