"""Converged linear probes of hidden states for words, phones and speakers, on any aligned corpus."""
