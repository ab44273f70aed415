"""Rewrites that make a model lose less in INT8, in the order in which they are tried."""
