"""`fbench suite` and its commands; the root finds them by name."""
