"""Bundles: one file that carries a model, and samples to judge it by, to the machine that builds its engine."""
