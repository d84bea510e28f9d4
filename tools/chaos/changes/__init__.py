"""Changes that operators make to a running system while its parts are broken."""
