"""Transforms, running products, scatters and other formulas written out."""
