"""What a drain asks of Redis: partitions, gates, numbers, and the scripts behind them."""
