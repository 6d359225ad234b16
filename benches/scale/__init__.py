"""What grows, what fails and what rests, measured beside its targets: `make scale`."""
