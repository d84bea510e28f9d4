"""The command `segrelay send`, and progress while deliveries are made."""
