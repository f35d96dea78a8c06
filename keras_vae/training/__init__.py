"""Training that resumes exactly: what Keras lacks around a step. Knows nothing of VAEs."""
