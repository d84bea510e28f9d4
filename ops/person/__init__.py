"""One person: whom an operator means, and all that is known of them."""
