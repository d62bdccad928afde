"""The version of the code, written into everything the project saves."""

VERSION = "0.1.0"
