"""Commands about the machine and its sandboxes; the root finds them by name."""
