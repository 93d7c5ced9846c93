"""Places that have coordinates for themselves (layers, heads, experts), and the orders in which a result has them."""
