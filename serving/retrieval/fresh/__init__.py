"""Users and items that came or went after a version was published."""
