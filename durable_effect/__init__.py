"""The typed effect core."""
