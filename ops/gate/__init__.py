"""Gates: each multiplies a map (B, C, H, W) by factors that it derives from the map itself, and keeps its shape."""
