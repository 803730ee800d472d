"""The yardstick: how long, how much memory and how far from the machine's limit, side by side in one process."""
