"""The pytest plugin of durable-effect."""
