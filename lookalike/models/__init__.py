"""What turns pixels into vectors: handles, SavedModels, engines, the shipped descriptor."""
