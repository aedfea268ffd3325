"""Closed forms: no search, one pass of small linear solves, and a certificate."""
