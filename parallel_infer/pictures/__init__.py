"""Files of pictures, as clients and commands read them."""
