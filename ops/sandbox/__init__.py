"""A faithful stand-in for Insider's user API, for tests, demonstrations and rehearsals."""
