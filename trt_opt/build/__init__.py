"""Engines on the disk: the store they are kept in, and the manifest beside each."""
