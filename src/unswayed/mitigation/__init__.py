"""Mitigation: questions whose answer cannot depend on who asks, and a judge of their answers."""
