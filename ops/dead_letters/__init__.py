"""The command `segrelay dlq`: reading, masking, replaying, exporting and importing letters."""
