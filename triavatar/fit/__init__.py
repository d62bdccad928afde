"""``triavatar fit``: several pictures, a video or a scan of one person to that person's avatar."""
