"""Put every trial to a model, and say what the answers show."""
