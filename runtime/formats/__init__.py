"""What files hold, checked where they are read."""
