"""The steps of the request: pack it, book its slot, write its note, send it."""
