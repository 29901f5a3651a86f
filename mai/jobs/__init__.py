"""Resumable work in an output folder: shards, leases with a heartbeat, atomic parts; any number of processes."""
