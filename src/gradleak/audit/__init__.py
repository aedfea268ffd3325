"""The audit: a whole run from a plan, its limits, and what they say of it."""
