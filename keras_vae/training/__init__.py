"""Training that resumes exactly, independent of VAEs."""
