"""Attention whose work grows with the number of positions, not with its square."""
