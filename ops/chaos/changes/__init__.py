"""Changes that people make to a running system while everything breaks."""
