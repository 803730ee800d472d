"""The one error of this package."""


class CheckpointError(ValueError):
    """A checkpoint, a catalogue or a download is unusable; the message names it, what is wrong and what to do."""
