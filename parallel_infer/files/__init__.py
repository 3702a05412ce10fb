"""What commands write, and text that other systems wrote."""
