"""Showing results: tables, figures, films with maps on them, and the pages that hold them."""
