"""The command `segrelay backfill`: planning, starting and reporting on jobs."""
