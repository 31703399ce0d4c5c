"""LoGo: local memory of the user, global memory of everyone, and a mediator (arXiv 2509.23767)."""
