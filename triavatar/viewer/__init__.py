"""The viewer in the browser: what it draws and what it asks for."""
