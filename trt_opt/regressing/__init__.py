"""Measuring, recording and checking, from files to a verdict."""
