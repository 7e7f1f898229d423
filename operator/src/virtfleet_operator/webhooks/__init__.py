"""Admission: refuse a bad manifest with a sentence that says what to write."""
