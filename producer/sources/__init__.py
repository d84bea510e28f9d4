"""Sources of rows: files in the formats of exports, and scans of an audience."""
