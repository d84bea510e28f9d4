"""The embedded Redis: its server binary, its configuration, starting, finding and stopping it."""
