"""Encoders, the query decoder, disease heads and the classifier made of them."""
