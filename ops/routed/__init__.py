"""Mixers whose pattern follows from the content of the map."""
