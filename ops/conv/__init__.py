"""Convolutional operators: context gathered, or positions merged, by convolutions."""
