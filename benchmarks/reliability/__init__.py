"""Campaigns against a server and what is published: how much was tried, and what was lost."""
