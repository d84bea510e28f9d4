"""The worker: takes deliveries from Redis Streams and makes them, batch by batch."""
