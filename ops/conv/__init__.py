"""Convolutional mixers: context gathered by depthwise convolutions."""
