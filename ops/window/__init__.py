"""Mixers with a fixed local pattern."""
