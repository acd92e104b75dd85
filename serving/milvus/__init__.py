"""The index of a version in Milvus."""
