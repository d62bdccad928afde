"""What was seen: cameras, conventions, multi-view sets, imported captures, and a doctor."""
