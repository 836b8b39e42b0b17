"""Timings of functrace beside its peers: `python -m bench eager --smoke`. Needs the `bench` extra for the peers."""
