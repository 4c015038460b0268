"""Judging: from a final workspace to a verdict. Start at `fbench.judging.judge`."""
