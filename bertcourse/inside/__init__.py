"""What happens inside a BERT, to look at: in a notebook, and with the model itself in the reader's browser."""
