"""Toybox, the built-in model: the world of objects it was trained on, its training and its weights."""
