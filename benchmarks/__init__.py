"""Measurements, each one command; nothing in the tests asserts a time."""
