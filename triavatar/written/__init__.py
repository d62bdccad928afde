"""What lies in an avatar's folder: views, sheet, map of what is unsure, exports and the report."""
