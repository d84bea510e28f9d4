"""The verdict on a run, and the records that it is drawn from."""
