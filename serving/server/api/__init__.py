"""The retrieval API: JSON over HTTP."""
