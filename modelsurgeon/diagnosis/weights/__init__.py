"""What the weights show, in one pass over them."""
