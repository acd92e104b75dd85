"""Rows and values at fault: they are collected, shown, set aside and counted."""
