"""Proofs and answers from the log: is it whole, would it be decided again, why did it happen, what was known when."""
