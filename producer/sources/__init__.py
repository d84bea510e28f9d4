"""Where rows come from: files in every format that exports have, and scans of an audience."""
