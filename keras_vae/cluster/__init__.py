"""Training with several workers: their launcher, rendezvous and strategy."""
