"""What the weights tell, in one pass over them."""
