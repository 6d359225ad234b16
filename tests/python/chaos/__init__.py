"""A cluster of real processes under faults, whose clients' histories are checked: `python -m chaos --help`."""
